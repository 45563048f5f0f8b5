// SPDX-License-Identifier: Apache-2.0
// Whose connection it is: equal addresses in two pods, addresses that are used again, a firewall
// that forgets, a descriptor that changes its owner.
#include <bpf/bpf.h>
#include <fmt/format.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <ctime>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_list.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint16_t kClientPort = 7001;
constexpr std::uint16_t kServerPort = 7002;

void abort_connection(UniqueFd& fd) {
  const linger abort{.l_onoff = 1, .l_linger = 0};
  EXPECT_EQ(::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)), 0);
  fd.reset();
}

// Deletes every entry of the namespace's conntrack, as `conntrack -F` does.
Result<void> flush_conntrack() {
  struct {
    nlmsghdr header;
    nfgenmsg message;
  } request{};
  request.header = {.nlmsg_len = sizeof(request),
                    .nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8U | IPCTNL_MSG_CT_DELETE,
                    .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
                    .nlmsg_seq = 0,
                    .nlmsg_pid = 0};
  struct {
    nlmsghdr header;
    nlmsgerr error;
  } answer{};
  const UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (::send(fd.get(), &request, sizeof(request), 0) != sizeof(request) ||
      ::recv(fd.get(), &answer, sizeof(answer), 0) < static_cast<ssize_t>(sizeof(answer))) {
    return errno_error("flush conntrack", errno);
  }
  return answer.error.error == 0 ? Result<void>()
                                 : errno_error("flush conntrack", -answer.error.error);
}

void give(const UniqueFd& channel, const UniqueFd& fd) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  char byte = 'f';
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = fd.get();
  std::memcpy(CMSG_DATA(header), &number, sizeof(number));
  EXPECT_EQ(::sendmsg(channel.get(), &message, 0), 1);
}

UniqueFd receive(const UniqueFd& channel) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  char byte = 0;
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  EXPECT_EQ(::recvmsg(channel.get(), &message, MSG_CMSG_CLOEXEC), 1);
  int number = -1;
  std::memcpy(&number, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(number));
  return UniqueFd(number);
}

class FastListAddresses : public FastList {
 protected:
  // Both ports are fixed.
  static Ends open_bound(const Pod& client, const Pod& server, const std::string& address) {
    Address own = address_of(client.name == server.name ? address : client.v4, kClientPort);
    Address target = address_of(address, kServerPort);
    const UniqueFd listener = socket_in(server, target.storage.ss_family);
    Ends ends;
    ends.client = socket_in(client, target.storage.ss_family);
    for (const UniqueFd* fd : std::initializer_list<const UniqueFd*>{&listener, &ends.client}) {
      set_option(*fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    EXPECT_EQ(::bind(listener.get(), target.get(), target.size), 0) << ::strerrorname_np(errno);
    EXPECT_EQ(::bind(ends.client.get(), own.get(), own.size), 0) << ::strerrorname_np(errno);
    EXPECT_EQ(::listen(listener.get(), 5), 0);
    EXPECT_TRUE(::connect(ends.client.get(), target.get(), target.size) == 0 ||
                errno == EINPROGRESS);
    ends.server = accept_from(listener);
    set_option(ends.server, IPPROTO_TCP, TCP_NODELAY, 1);
    return ends;
  }
  // Each with a connection of plain and one of shop, which skips TCP.
  void use_ports_again(Ends& slow, Ends& fast);
  void forget_in_the_firewall(Ends& slow, Ends& fast);
  void pass_to_another_pod(Ends& slow, Ends& fast);
};

// The new connection of the same addresses does not get the old one's bytes, which stay readable.
void FastListAddresses::use_ports_again(Ends& slow, Ends& fast) {
  for (const auto& [world, old] : {std::pair{&plain_, &slow}, std::pair{&shop_, &fast}}) {
    EXPECT_EQ(send_text(old->client, "old"), "sent");
    EXPECT_EQ(receive_text(old->server, 1, MSG_PEEK), "'o'");
    abort_connection(old->client);
    Ends next = open_bound(*world->client, *world->server, world->server->v4);
    if (world == &shop_) {
      make_fast({&next});
    }
    EXPECT_EQ(send_text(next.client, "new"), "sent");
    EXPECT_EQ(words({receive_text(next.server, 9), receive_text(old->server, 9),
                     receive_text(old->server, 9)}),
              "'new' 'old' ECONNRESET");
  }
}

// A firewall that forgets a connection takes its FIN for invalid, unless TCP has said something
// since: one message in a minute goes by TCP.
void FastListAddresses::forget_in_the_firewall(Ends& slow, Ends& fast) {
  const UniqueFd sockets(bpf_obj_get((sidetrack_->pin_dir() + "/v1/maps/st_fast_sockets").c_str()));
  const int number = fast.client.get();
  st_fast state{};
  ASSERT_EQ(bpf_map_lookup_elem(sockets.get(), &number, &state), 0);
  state.tcp_ns = 1;  // long ago
  ASSERT_EQ(bpf_map_update_elem(sockets.get(), &number, &state, BPF_EXIST), 0);
  for (const auto& [world, ends] : {std::pair{&plain_, &slow}, std::pair{&shop_, &fast}}) {
    const Netns& firewall = world->server->netns;
    filter(firewall, Ip::kV4, "-A INPUT -m conntrack --ctstate INVALID -j DROP");
    ST_ASSERT_OK(firewall.run(flush_conntrack));
    const std::uint64_t by_tcp = sent_by_tcp(ends->client);
    pass(ends->client, ends->server, "still there");
    EXPECT_EQ(sent_by_tcp(ends->client), by_tcp + 11);
    EXPECT_EQ(send_text(ends->client, "last"), "sent");
    ends->client.reset();
    EXPECT_EQ(words({receive_text(ends->server, 9), receive_text(ends->server, 9)}), "'last' EOF");
  }
  EXPECT_GE(refused("fp_refresh"), 1U);
}

// Its pod is the one that made it, whoever has it now.
void FastListAddresses::pass_to_another_pod(Ends& slow, Ends& fast) {
  for (Ends* ends : {&slow, &fast}) {
    int channel[2] = {-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel), 0);
    const UniqueFd here(channel[0]);
    const UniqueFd there(channel[1]);
    EXPECT_EQ(send_text(ends->client, "waits"), "sent");
    give(here, ends->server);
    ends->server.reset();
    ST_ASSERT_OK(plain_.client->netns.run([&]() -> Result<void> {
      const UniqueFd mine = receive(there);
      EXPECT_EQ(receive_text(mine, 9), "'waits'");
      EXPECT_EQ(stream(ends->client, mine, {}), whole(Pace{}.length));
      EXPECT_EQ(stream(mine, ends->client, {}), whole(Pace{}.length));
      EXPECT_EQ(send_text(ends->client, "12345"), "sent");
      int waiting = 0;
      EXPECT_TRUE(eventually(
          kPatience, [&] { return ::ioctl(mine.get(), FIONREAD, &waiting) == 0 && waiting == 5; }));
      EXPECT_EQ(receive_text(mine, 9), "'12345'");
      return {};
    }));
  }
  EXPECT_TRUE(eventually(kPatience, [&] { return reason_of("shop/server") == "fp_fionread"; }))
      << reason_of("shop/server");
}

TEST_F(FastListAddresses, connections_are_told_apart) {
  Ends one = open_bound(*shop_.client, *shop_.client, "127.0.0.1");
  Ends same = open_bound(*shop_.server, *shop_.server, "127.0.0.1");
  Ends one_v6 = open_bound(*shop_.client, *shop_.client, "::1");
  Ends same_v6 = open_bound(*shop_.server, *shop_.server, "::1");
  Ends bound_slow = open_bound(*plain_.client, *plain_.server, plain_.server->v4);
  Ends bound = open_bound(*shop_.client, *shop_.server, shop_.server->v4);
  Ends watched_slow = open_on(plain_, {});
  Ends watched = open_on(shop_, {});
  Ends given_slow = open_on(plain_, {});
  Ends given = open_on(shop_, {});
  make_fast({&one, &same, &one_v6, &same_v6, &bound, &watched, &given});
  for (const auto& [a, b] : {std::pair{&one, &same}, std::pair{&one_v6, &same_v6}}) {
    EXPECT_EQ(send_text(a->client, "one"), "sent");
    EXPECT_EQ(send_text(b->client, "same"), "sent");
    EXPECT_EQ(words({receive_text(b->server, 9), receive_text(a->server, 9)}), "'same' 'one'");
    EXPECT_EQ(stream(a->client, a->server, {}), whole(Pace{}.length));
    EXPECT_EQ(stream(b->server, b->client, {}), whole(Pace{}.length));
  }
  ASSERT_NO_FATAL_FAILURE(use_ports_again(bound_slow, bound));
  ASSERT_NO_FATAL_FAILURE(forget_in_the_firewall(watched_slow, watched));
  ASSERT_NO_FATAL_FAILURE(pass_to_another_pod(given_slow, given));
}

}  // namespace
}  // namespace sidetrack::lab
