// SPDX-License-Identifier: Apache-2.0
// Attack "disc": a socket that has skipped TCP becomes another connection, or a listener, while
// bytes of the old one wait in it. Nobody gets those, nor does the new one find a way past TCP that
// is not its own.
#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_list.h"

namespace sidetrack::lab {
namespace {

using End = UniqueFd Ends::*;

End other(End end) {
  return end == &Ends::client ? &Ends::server : &Ends::client;
}

int family_of(const UniqueFd& fd) {
  int family = 0;
  socklen_t size = sizeof(family);
  EXPECT_EQ(::getsockopt(fd.get(), SOL_SOCKET, SO_DOMAIN, &family, &size), 0);
  return family;
}

// A socket of the namespace that `fd` is of, without a connection.
UniqueFd socket_beside(const UniqueFd& fd, int family) {
  const UniqueFd netns(::ioctl(fd.get(), SIOCGSKNS));
  UniqueFd made;
  EXPECT_TRUE(run_in_netns(netns.get(), [&]() -> Result<void> {
    made = UniqueFd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return {};
  }));
  set_option(made, IPPROTO_TCP, TCP_NODELAY, 1);
  return made;
}

// The address that a connected socket has, and a port, for a socket of `family`.
Address address_for(int family, const UniqueFd& connected, std::uint16_t port) {
  Address own;
  own.size = sizeof(own.storage);
  EXPECT_EQ(::getsockname(connected.get(), own.get(), &own.size), 0);
  char text[INET6_ADDRSTRLEN] = {};
  if (own.storage.ss_family == AF_INET) {
    ::inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(&own.storage)->sin_addr, text,
                sizeof(text));
  } else {
    ::inet_ntop(AF_INET6, &reinterpret_cast<sockaddr_in6*>(&own.storage)->sin6_addr, text,
                sizeof(text));
  }
  const std::string address = text;
  const bool is_v4 = address.find(':') == std::string::npos;
  const std::string mapped = "::ffff:";
  if (family == AF_INET6) {
    return address_of(is_v4 ? mapped + address : address, port);
  }
  return address_of(is_v4 ? address : address.substr(mapped.size()), port);
}

void disconnect(const UniqueFd& fd) {
  const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
  EXPECT_EQ(::connect(fd.get(), &nowhere, sizeof(nowhere)), 0) << ::strerrorname_np(errno);
}

// Bytes that the peer has sent wait in it, past TCP where that is.
void leave_secret(const Ends& ends, End end) {
  EXPECT_EQ(send_text(ends.*other(end), "OLDSECRET"), "sent");
  EXPECT_EQ(receive_text(ends.*end, 1, MSG_PEEK), "'O'");
}

void connect_to(const UniqueFd& fd, Address address) {
  EXPECT_TRUE(::connect(fd.get(), address.get(), address.size) == 0 || errno == EINPROGRESS)
      << ::strerrorname_np(errno);
}

// What both ends of the new connection hear.
std::string talk_anew(const UniqueFd& first, const UniqueFd& second) {
  return words({send_text(first, "new"), receive_text(second, 99), send_text(second, "back"),
                receive_text(first, 99)});
}

std::string connect_again(Ends& ends, End end) {
  leave_secret(ends, end);
  const UniqueFd& peer = ends.*other(end);
  const UniqueFd listener = socket_beside(peer, family_of(peer));
  EXPECT_EQ(::listen(listener.get(), 5), 0);
  const Address there = address_for(family_of(ends.*end), peer, port_of(listener, ::getsockname));
  disconnect(ends.*end);
  connect_to(ends.*end, there);
  const UniqueFd accepted = accept_from(listener);
  set_option(accepted, IPPROTO_TCP, TCP_NODELAY, 1);
  return talk_anew(accepted, ends.*end);
}

class FastListAnew : public FastList {
 protected:
  // Neither the listener nor what it accepts is on the fast path.
  [[nodiscard]] std::string listen_again(Ends& ends, End end) const {
    leave_secret(ends, end);
    const UniqueFd& peer = ends.*other(end);
    const UniqueFd next = socket_beside(peer, family_of(peer));
    const Address any = address_for(family_of(peer), ends.*end, 0);
    disconnect(ends.*end);
    EXPECT_EQ(::listen((ends.*end).get(), 5), 0) << ::strerrorname_np(errno);
    const bool left = !adopted(ends.*end);
    Address there = any;
    reinterpret_cast<sockaddr_in*>(&there.storage)->sin_port =
        htons(port_of(ends.*end, ::getsockname));
    connect_to(next, there);
    const UniqueFd accepted = accept_from(ends.*end);
    set_option(accepted, IPPROTO_TCP, TCP_NODELAY, 1);
    return words(
        {left ? "left" : "still in", adopted(accepted) ? "in" : "out", talk_anew(next, accepted)});
  }
};

TEST_F(FastListAnew, a_socket_made_anew_has_nothing_of_the_old_connection) {
  std::vector<Road> roads = all_roads();
  // Through a service the peer has an address of the node.
  std::erase_if(roads, [](const Road& road) { return road.where == Where::kService; });
  const std::string both = "sent 'new' sent 'back'";
  const auto listens = [this](End end) {
    return [this, end](Ends& ends) { return listen_again(ends, end); };
  };
  expect_all({{"the client connects again",
               [](Ends& ends) { return connect_again(ends, &Ends::client); }, both},
              {"the server's socket connects again",
               [](Ends& ends) { return connect_again(ends, &Ends::server); }, both},
              {"the client listens", listens(&Ends::client), "left out " + both},
              {"the server's socket listens again", listens(&Ends::server), "left out " + both}},
             roads);
}

}  // namespace
}  // namespace sidetrack::lab
