// SPDX-License-Identifier: Apache-2.0
// What TCP itself promises must hold through the engine: the same script runs over a redirected and
// over a direct connection.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <random>
#include <utility>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fault_node.h"
#include "tests/lab/proc_stats.h"

namespace sidetrack::lab {
namespace {

enum class Way { kRedirected, kDirect };

// A server of the test's own in the api pod, and a client in web.
class Streams : public FaultNode, public testing::WithParamInterface<Way> {
 protected:
  static constexpr std::uint16_t kServer = 7100;

  void SetUp() override {
    FaultNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    start_echo({"echo:7000", "greeting:7001", "reset:7002", "silent:7003"});
    if (GetParam() == Way::kDirect) {
      put_web("web", {{"sidetrack.io/mode", "passthrough"}});
      ASSERT_NO_FATAL_FAILURE(make_sidetrack());
      ST_ASSERT_OK(sidetrack_->start());
      ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
      shell_ = shell_in(*web_);
    } else {
      ASSERT_NO_FATAL_FAILURE(start_sidetrack());
    }
    before_ = counted();
    server_ = shell_in(*api_);
  }
  void TearDown() override {
    if (sidetrack_ && !IsSkipped()) {
      const Counts counts = since(before_);
      EXPECT_EQ(counts.size(), 1U);
      EXPECT_EQ(counts.count(GetParam() == Way::kDirect ? "passthrough" : "redirected"), 1U);
    }
  }
  int open(std::uint16_t port, const std::string& address = {}) {
    const auto socket = shell_->connect(address.empty() ? api_v4_ : address, port);
    EXPECT_TRUE(socket.has_value() && socket->error_number == 0) << sidetrack_->logs();
    return socket ? socket->id : 0;
  }
  // Both ends of a connection to `server_`.
  void open_pair(int& client, int& served) {
    ST_ASSERT_VALUE(const auto listener, server_->listen(api_v4_, kServer));
    ASSERT_EQ(listener.error_number, 0);
    client = open(kServer);
    ST_ASSERT_VALUE(const auto accepted, server_->accept(listener.id));
    ASSERT_EQ(accepted.error_number, 0);
    EXPECT_EQ(accepted.address, web_->v4);
    served = accepted.id;
  }
  std::unique_ptr<PodShell> server_;
  Counts before_;
};

TEST_P(Streams, a_reset_by_the_server_reaches_the_client) {
  const int id = open(7002);
  ST_ASSERT_OK(shell_->send(id, "x"));
  ST_ASSERT_VALUE(const auto received, shell_->receive(id, 1));
  EXPECT_EQ(received.error_number, ECONNRESET);
}

TEST_P(Streams, a_reset_by_the_client_reaches_the_server) {
  int client = 0;
  int served = 0;
  ASSERT_NO_FATAL_FAILURE(open_pair(client, served));
  ST_ASSERT_OK(shell_->send(client, "x"));
  ST_ASSERT_VALUE(const auto one, server_->receive(served, 1));
  EXPECT_EQ(one.text, "x");
  ST_ASSERT_OK(shell_->close(client, CloseHow::kReset));
  ST_ASSERT_VALUE(const auto received, server_->receive(served, 1));
  EXPECT_EQ(received.error_number, ECONNRESET);
}

TEST_P(Streams, a_client_may_end_its_half_first) {
  int client = 0;
  int served = 0;
  ASSERT_NO_FATAL_FAILURE(open_pair(client, served));
  ST_ASSERT_OK(shell_->send(client, "question"));
  ST_ASSERT_OK(shell_->shutdown(client));
  ST_ASSERT_VALUE(const auto asked, server_->receive(served, 100));
  EXPECT_EQ(asked.text, "question");
  EXPECT_EQ(asked.error_number, 0);
  ST_ASSERT_OK(server_->send(served, "answer"));
  ST_ASSERT_OK(server_->close(served));
  ST_ASSERT_VALUE(const auto answered, shell_->receive(client, 100));
  EXPECT_EQ(answered.text, "answer");
  EXPECT_EQ(answered.error_number, 0);
}

TEST_P(Streams, a_server_may_end_its_half_first) {
  int client = 0;
  int served = 0;
  ASSERT_NO_FATAL_FAILURE(open_pair(client, served));
  ST_ASSERT_OK(server_->send(served, "all"));
  ST_ASSERT_OK(server_->shutdown(served));
  ST_ASSERT_VALUE(const auto told, shell_->receive(client, 100));
  EXPECT_EQ(told.text, "all");
  EXPECT_EQ(told.error_number, 0);
  ST_ASSERT_OK(shell_->send(client, "thanks"));
  ST_ASSERT_OK(shell_->close(client));
  ST_ASSERT_VALUE(const auto thanked, server_->receive(served, 100));
  EXPECT_EQ(thanked.text, "thanks");
  EXPECT_EQ(thanked.error_number, 0);
}

TEST_P(Streams, a_server_may_speak_first) {
  const int id = open(7001);
  ST_ASSERT_VALUE(const auto greeted, shell_->receive(id, 7));
  EXPECT_EQ(greeted.text, "hello\r\n");
}

TEST_P(Streams, a_refused_upstream_is_an_error_and_no_clean_end) {
  ST_ASSERT_VALUE(const auto socket, shell_->connect(api_v4_, 7999));
  if (GetParam() == Way::kDirect) {
    EXPECT_EQ(socket.errno_name, "ECONNREFUSED");
    return;
  }
  EXPECT_EQ(socket.errno_name, "");
  ST_ASSERT_VALUE(const auto received, shell_->receive(socket.id, 1));
  EXPECT_EQ(received.error_number, ECONNRESET);
}

TEST_P(Streams, streams_of_any_size_are_exact) {
  constexpr int kShells = 3;
  constexpr int kStreamsEach = 8;
  constexpr std::uint32_t kSeed = 20;  // the same sizes in every run
  std::vector<std::unique_ptr<PodShell>> shells;
  std::vector<std::future<void>> running;
  for (int i = 0; i < kShells; ++i) {
    shells.push_back(shell_in(*web_));
    running.push_back(std::async(std::launch::async, [this, i, &shell = *shells.back()] {
      std::mt19937 random(kSeed + static_cast<std::uint32_t>(i));
      for (int k = 0; k < kStreamsEach; ++k) {
        const std::uint64_t length = random() % (std::uint64_t{1} << (random() % 22 + 1));
        ST_ASSERT_VALUE(const auto socket, shell.connect(k % 2 == 0 ? api_->v4 : api_->v6, kEcho));
        ASSERT_EQ(socket.errno_name, "");
        ST_ASSERT_VALUE(const auto done, shell.exchange(socket.id, length, random()));
        EXPECT_EQ(done.error_number, 0);
        EXPECT_EQ(done.length, length);
        EXPECT_EQ(done.digest, done.expected_digest);
        ST_ASSERT_OK(shell.close(socket.id));
      }
    }));
  }
  for (auto& one : running) {
    one.get();
  }
}

INSTANTIATE_TEST_SUITE_P(ByWay, Streams, testing::Values(Way::kRedirected, Way::kDirect),
                         [](const auto& way) {
                           return way.param == Way::kDirect ? "direct" : "redirected";
                         });

// Connections of which nobody reads what the other end sends.
class BackPressure : public FaultNode {
 protected:
  static constexpr std::uint16_t kSilent = 7003;
  static constexpr std::uint16_t kDeaf = 7004;  // sends, too, as much as it can
  static constexpr std::uint64_t kFlood = 64U << 20;
  static constexpr std::uint64_t kStuck = 100;
  static constexpr std::uint64_t kDefaultBuffer = 256U << 10;
  static constexpr std::uint64_t kSlack = 1U << 20;  // of all together

  void start(const std::vector<std::string>& engine_arguments = {}) {
    start_echo({"echo:7000", "silent:7003", fmt::format("deaf:{}:{}", kDeaf, kFlood)});
    ASSERT_NO_FATAL_FAILURE(start_sidetrack({.engine_arguments = engine_arguments}));
    expect_connections(10, "redirected");
  }
  // Sockets that are full soon, and give the engine more than it may hold and take little from it:
  // what it has read has to wait.
  void limit_sockets() {
    for (const Pod* pod : {web_, api_}) {
      ST_ASSERT_OK(pod->netns.write_sysctl("ipv4/tcp_rmem", "4096 524288 524288"));
      ST_ASSERT_OK(pod->netns.write_sysctl("ipv4/tcp_wmem", "4096 16384 16384"));
    }
  }
  // So many connections of web that take nothing more.
  void stick(std::uint64_t count, std::uint16_t port) {
    ST_ASSERT_VALUE(const auto opened,
                    shell_->command(fmt::format("hold {} {} {} nonblock", api_v4_, port, count)));
    ASSERT_EQ(opened.value("opened", std::uint64_t{0}), count) << opened;
    ST_ASSERT_VALUE(const auto filled, shell_->command(fmt::format("fill_held len={}", kFlood)));
    EXPECT_EQ(filled["errors"], nlohmann::json::object());
    EXPECT_GT(filled.value("least", std::uint64_t{0}), kDefaultBuffer);
    EXPECT_LT(filled.value("most", kFlood), kFlood);
  }
  [[nodiscard]] std::uint64_t engine_bytes() const {
    return resident_bytes(sidetrack_->engine().pid());
  }
  // Sticks kStuck connections to `port`; what each of them costs the engine.
  std::uint64_t stick_and_weigh(std::uint16_t port) {
    const std::uint64_t before = engine_bytes();
    stick(kStuck, port);
    const std::uint64_t after = engine_bytes();
    return (after - std::min(after, before)) / kStuck;
  }
  // The kernel's own limit of a socket's queue: "tcp_rmem".
  static std::uint64_t most_of(const std::string& name) {
    std::uint64_t limit = 0;
    std::ifstream("/proc/sys/net/ipv4/" + name) >> limit >> limit >> limit;
    return limit;
  }
  void expect_others_are_served() {
    const auto other = shell_in(*web_);
    ST_ASSERT_VALUE(const auto socket, other->connect(api_v4_, kEcho));
    ST_ASSERT_VALUE(const auto done, other->exchange(socket.id, 1'000'000));
    EXPECT_EQ(done.digest, done.expected_digest);
  }
  // What waits in the queues of the engine's sockets in web's netns: one of each connection is at a
  // listener's port, the other one goes to kDeaf.
  [[nodiscard]] std::uint64_t queued_in_kernel() const {
    std::ifstream table(fmt::format("/proc/{}/net/tcp", shell_->process().pid()));
    std::uint64_t sum = 0;
    for (std::string line; std::getline(table, line);) {
      unsigned here = 0;
      unsigned there = 0;
      unsigned long to_send = 0;
      unsigned long to_read = 0;
      if (std::sscanf(line.c_str(), "%*d: %*8x:%x %*8x:%x %*x %lx:%lx", &here, &there, &to_send,
                      &to_read) == 4 &&
          ((here >= 15900 && here <= 15999) || there == kDeaf)) {
        sum += to_send + to_read;
      }
    }
    return sum;
  }
};

TEST_F(BackPressure, a_server_that_does_not_read_costs_bounded_memory_and_stops_its_client_only) {
  limit_sockets();
  ASSERT_NO_FATAL_FAILURE(start());
  EXPECT_LT(stick_and_weigh(kSilent), kDefaultBuffer + kSlack / kStuck);
  expect_others_are_served();
}

// What the kernel's sockets hold is not in the engine's 256 KiB, and bounded by the kernel.
TEST_F(BackPressure, what_waits_in_sockets_has_their_own_limits) {
  constexpr std::uint64_t kFew = 3;
  ASSERT_NO_FATAL_FAILURE(start());
  ASSERT_NO_FATAL_FAILURE(stick(kFew, kDeaf));
  const std::uint64_t each = queued_in_kernel() / kFew;
  EXPECT_GT(each, kDefaultBuffer);
  EXPECT_LT(each, 2 * (most_of("tcp_rmem") + most_of("tcp_wmem")));
  fmt::print("socket_bytes_each {}\n", each);
}

// The option's text, empty for none, and what it promises.
using Buffer = std::pair<std::string, std::uint64_t>;

class BufferSize : public BackPressure, public testing::WithParamInterface<Buffer> {};

TEST_P(BufferSize, bounds_what_two_ends_that_do_not_read_cost_in_both_directions_at_once) {
  const auto& [option, bytes] = GetParam();
  limit_sockets();
  ASSERT_NO_FATAL_FAILURE(start(option.empty() ? std::vector<std::string>{}
                                               : std::vector<std::string>{"--buffer", option}));
  const std::uint64_t each = stick_and_weigh(kDeaf);
  EXPECT_GT(each, 0U);
  EXPECT_LT(each, bytes + kSlack / kStuck);
  fmt::print("engine_bytes_each {}\n", each);
  expect_others_are_served();
}

// The smaller one is less than what such a connection takes with the default.
INSTANTIATE_TEST_SUITE_P(Sizes, BufferSize,
                         testing::Values(Buffer{"", 256U << 10}, Buffer{"16KiB", 16U << 10}),
                         [](const auto& row) {
                           return row.param.first.empty() ? "as_by_default" : "small";
                         });

}  // namespace
}  // namespace sidetrack::lab
