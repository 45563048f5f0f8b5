// SPDX-License-Identifier: Apache-2.0
// Sockets that must not skip TCP: the product counts why, and their bytes go by TCP.
#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <functional>
#include <thread>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_list.h"

namespace sidetrack::lab {
namespace {

constexpr Road kVeth{};

// Another product's sockmap: a verdict program that lets everything pass.
struct OtherProduct {
  UniqueFd map{bpf_map_create(BPF_MAP_TYPE_SOCKMAP, "other", 4, 4, 8, nullptr)};
  UniqueFd program;

  OtherProduct() {
    const std::array<bpf_insn, 2> pass = {
        {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = SK_PASS}, {.code = BPF_JMP | BPF_EXIT}}};
    program = UniqueFd(
        bpf_prog_load(BPF_PROG_TYPE_SK_MSG, "other", "GPL", pass.data(), pass.size(), nullptr));
    EXPECT_EQ(bpf_prog_attach(program.get(), map.get(), BPF_SK_MSG_VERDICT, 0), 0);
  }
  // errno, 0 = it has the socket now.
  [[nodiscard]] int take(const UniqueFd& fd, std::uint32_t key = 0) const {
    const int number = fd.get();
    return bpf_map_update_elem(map.get(), &key, &number, BPF_ANY) == 0 ? 0 : errno;
  }
};

void set_blocking(const UniqueFd& fd, Blocking blocking) {
  EXPECT_EQ(::fcntl(fd.get(), F_SETFL, blocking == Blocking::kNo ? O_NONBLOCK : 0), 0);
}

// A few round trips; whether all bytes went by TCP.
bool talk_by_tcp(const Ends& ends) {
  const std::uint64_t before = sent_by_tcp(ends.client) + sent_by_tcp(ends.server);
  for (int i = 0; i < 8; ++i) {
    pass(ends.client, ends.server, "question");
    pass(ends.server, ends.client, "answer");
  }
  return sent_by_tcp(ends.client) + sent_by_tcp(ends.server) - before == std::uint64_t{8} * 14;
}

class FastListRefused : public FastList {
 protected:
  struct Refusal {
    const char* name;
    std::string reason;
    std::function<void(Ends&)> prepare;
    std::function<void(Ends&)> undo{};  // what would stop the bytes
    Ends ends{};
  };

  // The agent sees connections only when all is prepared.
  template <typename Prepare>
  void unseen(Prepare prepare) {
    ST_ASSERT_OK(sidetrack_->agent().signal(SIGSTOP));
    prepare();
    ST_ASSERT_OK(sidetrack_->agent().signal(SIGCONT));
  }
  [[nodiscard]] UniqueFd open_map(const std::string& name) const {
    return UniqueFd(bpf_obj_get((sidetrack_->pin_dir() + "/v1/maps/" + name).c_str()));
  }
  void expect_fast_again() {
    Ends ends = open_on(shop_, kVeth);
    make_fast({&ends});
  }
  // A connection that begins with no room in st_pairs, or is to be adopted with none in st_adopted.
  void expect_refused_now(const std::string& reason) {
    const std::uint64_t before = refused(reason);
    Ends ends = open_on(shop_, kVeth);
    EXPECT_TRUE(talk_by_tcp(ends));
    EXPECT_TRUE(eventually(kPatience, [&] { return refused(reason) == before + 1; })) << reason;
    EXPECT_TRUE(talk_by_tcp(ends));
  }
  void fill_pairs();
  void fill_adopted();
  void try_mptcp();
  void accept_late();
  void wake_late();
};

void FastListRefused::fill_pairs() {
  const UniqueFd map = open_map("st_pairs");
  std::vector<st_pair_key> keys(ST_MAX_PAIRS);
  const std::vector<st_pair> rows(keys.size());
  for (std::uint32_t i = 0; i < keys.size(); ++i) {
    keys[i] = {.client_first = i, .server_first = ~i};
  }
  auto count = static_cast<std::uint32_t>(keys.size());
  ASSERT_EQ(bpf_map_update_batch(map.get(), keys.data(), rows.data(), &count, nullptr), 0);
  expect_refused_now("fp_pairs_full");
  ASSERT_EQ(bpf_map_delete_batch(map.get(), keys.data(), &count, nullptr), 0);
  expect_fast_again();
}

// Sockets can be in it many times as long as it has no program.
void FastListRefused::fill_adopted() {
  const UniqueFd map = open_map("st_adopted");
  std::uint32_t id = 0;
  std::uint32_t count = 1;
  ASSERT_EQ(bpf_prog_query(map.get(), BPF_SK_MSG_VERDICT, 0, nullptr, &id, &count), 0);
  const UniqueFd program(bpf_prog_get_fd_by_id(id));
  ASSERT_EQ(bpf_prog_detach2(program.get(), map.get(), BPF_SK_MSG_VERDICT), 0);
  std::vector<UniqueFd> sockets;
  int failure = 0;
  for (std::uint64_t key = 1; failure == 0; ++key) {
    if (key % 256 == 1) {
      sockets.emplace_back(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      Address any = address_of("127.0.0.1", 0);
      ASSERT_EQ(::bind(sockets.back().get(), any.get(), any.size), 0);
    }
    const std::uint64_t unused = ~key;  // the cookie of no socket
    const auto number = static_cast<std::uint64_t>(sockets.back().get());
    failure = bpf_map_update_elem(map.get(), &unused, &number, BPF_NOEXIST) == 0 ? 0 : errno;
  }
  EXPECT_EQ(failure, E2BIG);
  ASSERT_EQ(bpf_prog_attach(program.get(), map.get(), BPF_SK_MSG_VERDICT, 0), 0);
  expect_refused_now("fp_map_full");
  sockets.clear();
  expect_fast_again();
}

// Never in a pair, so never looked at for adoption. (Children of MPTCP in a sockmap crash kernels
// before 6.18: there it is not tried.)
void FastListRefused::try_mptcp() {
  utsname name{};
  int major = 0;
  int minor = 0;
  ::uname(&name);
  if (std::sscanf(name.release, "%d.%d", &major, &minor) != 2 || major * 1000 + minor < 6018) {
    return;
  }
  ASSERT_TRUE(eventually(kPatience, [&] { return sidetrack_->dump_map("st_pairs")->empty(); }));
  const auto join = [&](int client_protocol, int server_protocol) {
    UniqueFd listener = socket_in(*shop_.server, AF_INET, server_protocol);
    Address any = address_of("0.0.0.0", 0);
    EXPECT_EQ(::bind(listener.get(), any.get(), any.size), 0);
    EXPECT_EQ(::listen(listener.get(), 5), 0);
    Address target = target_of(shop_, kVeth, listener);
    Ends ends;
    ends.client = socket_in(*shop_.client, AF_INET, client_protocol);
    (void)::connect(ends.client.get(), target.get(), target.size);
    ends.server = accept_from(listener);
    set_option(ends.server, IPPROTO_TCP, TCP_NODELAY, 1);
    return ends;
  };
  Ends both = join(IPPROTO_MPTCP, IPPROTO_MPTCP);
  Ends client_only = join(IPPROTO_MPTCP, 0);
  Ends server_only = join(0, IPPROTO_MPTCP);  // Go listens so: what is accepted is plain TCP
  for (const Ends* ends : {&both, &client_only}) {
    EXPECT_TRUE(talk_by_tcp(*ends));
  }
  make_fast({&server_only});
  EXPECT_EQ(sidetrack_->dump_map("st_pairs")->size(), 1U);
  for (const Ends* ends : {&both, &client_only}) {
    EXPECT_TRUE(talk_by_tcp(*ends));
  }
}

bool sleeps_in_receive(pid_t thread) {
  std::ifstream call(fmt::format("/proc/self/task/{}/syscall", thread));
  long number = -1;
  return (call >> number) && number == SYS_recvfrom;
}

// What passes: once it has, the connection skips TCP.
void FastListRefused::accept_late() {
  const UniqueFd listener = listen_in(shop_, kVeth);
  Address target = target_of(shop_, kVeth, listener);
  Ends late;
  late.client = socket_in(*shop_.client, AF_INET);
  EXPECT_TRUE(::connect(late.client.get(), target.get(), target.size) == 0 || errno == EINPROGRESS);
  std::size_t sent = 0;
  EXPECT_TRUE(eventually(kPatience, [&] {
    sent += ::send(late.client.get(), "x", 1, MSG_NOSIGNAL) == 1 ? 1 : 0;
    return reason_of("shop/server") == "fp_not_accepted";
  })) << reason_of("shop/server");
  late.server = accept_from(listener);
  set_option(late.server, IPPROTO_TCP, TCP_NODELAY, 1);
  EXPECT_EQ(receive_text(late.server, sent + 1), "'" + std::string(sent, 'x') + "'");
  make_fast({&late});
}

void FastListRefused::wake_late() {
  const UniqueFd listener = listen_in(shop_, kVeth);
  Address target = target_of(shop_, kVeth, listener);
  Ends ends;
  std::atomic<pid_t> reader_id{0};
  std::string got(100, '\0');
  std::thread reader;
  ASSERT_NO_FATAL_FAILURE(unseen([&] {
    ends.client = socket_in(*shop_.client, AF_INET);
    EXPECT_TRUE(::connect(ends.client.get(), target.get(), target.size) == 0 ||
                errno == EINPROGRESS);
    pollfd wanted{listener.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&wanted, 1, static_cast<int>(kPatience.count())), 1);
    ends.server = UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    set_option(ends.server, IPPROTO_TCP, TCP_NODELAY, 1);
    reader = std::thread([&] {
      reader_id = static_cast<pid_t>(::syscall(SYS_gettid));
      got.resize(
          static_cast<std::size_t>(::recv(ends.server.get(), got.data(), got.size(), MSG_WAITALL)));
    });
    EXPECT_TRUE(eventually(kPatience, [&] { return sleeps_in_receive(reader_id); }));
    set_blocking(ends.server, Blocking::kNo);
  }));
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(send_text(ends.client, "r"), "sent");
    pass(ends.server, ends.client, "s");
  }
  EXPECT_TRUE(eventually(kPatience, [&] {
    return reason_of("shop/server") == "fp_sleeping_reader";
  })) << reason_of("shop/server");
  EXPECT_EQ(send_text(ends.client, std::string(92, 'r')), "sent");
  reader.join();
  EXPECT_EQ(got, std::string(100, 'r'));
  make_fast({&ends});
}

std::function<void(Ends&)> set_on(UniqueFd Ends::*end, int level, int option, int value) {
  return [=](Ends& ends) { set_option(ends.*end, level, option, value); };
}

TEST_F(FastListRefused, sockets_that_might_notice_stay_on_tcp) {
  const OtherProduct other;
  const auto server = &Ends::server;
  const auto client = &Ends::client;
  std::vector<Refusal> refusals;
  const auto add = [&](Refusal refusal) { refusals.push_back(std::move(refusal)); };
  add({"blocking", "fp_blocking", [](Ends& e) { set_blocking(e.server, Blocking::kYes); }});
  add({"blocking for a moment", "fp_marked", [](Ends& e) {
         set_blocking(e.client, Blocking::kYes);
         set_blocking(e.client, Blocking::kNo);
       }});
  add({"SO_ZEROCOPY", "fp_zerocopy", set_on(client, SOL_SOCKET, SO_ZEROCOPY, 1)});
  add({"SO_RCVLOWAT", "fp_rcvlowat", set_on(server, SOL_SOCKET, SO_RCVLOWAT, 100),
       set_on(server, SOL_SOCKET, SO_RCVLOWAT, 1)});
  add({"SO_PEEK_OFF", "fp_peek_off", set_on(client, SOL_SOCKET, SO_PEEK_OFF, 0)});
  add({"SO_TIMESTAMP", "fp_timestamping", set_on(server, SOL_SOCKET, SO_TIMESTAMP, 1)});
  add({"SO_TIMESTAMPING", "fp_timestamping", set_on(client, SOL_SOCKET, SO_TIMESTAMPING, 16)});
  add({"TCP_INQ", "fp_tcp_inq", set_on(server, IPPROTO_TCP, TCP_INQ, 1)});
  add({"TCP_REPAIR", "fp_repair", set_on(server, IPPROTO_TCP, TCP_REPAIR, 1),
       set_on(server, IPPROTO_TCP, TCP_REPAIR, -1)});
  add({"another product's", "fp_busy", [&](Ends& e) { EXPECT_EQ(other.take(e.server), 0); }});

  Ends control;
  ASSERT_NO_FATAL_FAILURE(unseen([&] {
    for (Refusal& refusal : refusals) {
      refusal.ends = open_on(shop_, kVeth);
      EXPECT_TRUE(talk_by_tcp(refusal.ends));  // it is old enough
      refusal.prepare(refusal.ends);
    }
    control = open_on(shop_, kVeth);
  }));
  std::map<std::string, std::uint64_t> expected;
  for (const Refusal& refusal : refusals) {
    ++expected[refusal.reason];
  }
  for (const auto& [reason, count] : expected) {
    EXPECT_TRUE(eventually(kPatience, [&] { return refused(reason) >= count; })) << reason;
    EXPECT_EQ(refused(reason), count) << reason;
  }
  make_fast({&control});
  for (Refusal& refusal : refusals) {
    if (refusal.undo) {
      refusal.undo(refusal.ends);
    }
    EXPECT_TRUE(talk_by_tcp(refusal.ends)) << refusal.name;
  }
  // One that comes later does not get what is ours, and breaks nothing.
  EXPECT_EQ(other.take(control.server, 1), EBUSY);
  EXPECT_EQ(stream(control.client, control.server, {}), whole(Pace{}.length));
}

TEST_F(FastListRefused, late_ones_wait_full_maps_and_mptcp_stay_on_tcp) {
  ASSERT_NO_FATAL_FAILURE(accept_late());
  ASSERT_NO_FATAL_FAILURE(wake_late());
  ASSERT_NO_FATAL_FAILURE(fill_pairs());
  ASSERT_NO_FATAL_FAILURE(fill_adopted());
  ASSERT_NO_FATAL_FAILURE(try_mptcp());
}

}  // namespace
}  // namespace sidetrack::lab
