// SPDX-License-Identifier: Apache-2.0
// How connections end and what their flow records say, redirected and passed through: exact bytes,
// the right reason.
#include <fmt/format.h>
#include <linux/bpf.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

class CloseTest : public Mesh, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    Mesh::SetUp();
    if (!HasFatalFailure() && !IsSkipped() && !redirected()) {
      label(kMode, GetParam());
    }
  }
  [[nodiscard]] static bool redirected() { return GetParam() == std::string("redirect"); }

  int connected(std::uint16_t port, const std::string& address) {
    const auto socket = shell_->connect(address, port);
    EXPECT_TRUE(socket && socket->error_number == 0) << sidetrack_->logs();
    return socket ? socket->id : 0;
  }

  void flow_says(const std::string& source, const std::string& close, std::uint64_t out,
                 std::uint64_t in) const {
    const json flow = closed_flow(source);
    EXPECT_EQ(flow["reason"], redirected() ? "redirected" : "passthrough") << flow;
    EXPECT_EQ(flow["close"], close) << flow;
    EXPECT_EQ(flow["bytes_out"], out) << flow;
    EXPECT_EQ(flow["bytes_in"], in) << flow;
    EXPECT_EQ(flow["path"], redirected() ? "engine" : "direct") << flow;
    EXPECT_EQ(flow["endpoint"] == "", close == "refused" || close == "timeout") << flow;
  }
};

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The two clocks are not read at once. A connection here is open for longer.
constexpr double kClockSlack = 0.1;
constexpr milliseconds kOpenFor{300};

void expect_between(double from, const json& time, double to) {
  EXPECT_GE(time.get<double>(), from - kClockSlack);
  EXPECT_LE(time.get<double>(), to + kClockSlack);
}

TEST_P(CloseTest, start_and_end_are_those_of_the_connection) {
  const double asked = unix_time();
  const int id = connected(kEcho, api_->v4);
  const double open = unix_time();
  const std::string source = source_of(*shell_, id);
  const auto live = flows_from(source);
  ASSERT_EQ(live.size(), 1U);
  expect_between(asked, live[0]["start"], open);
  EXPECT_EQ(live[0]["end"], 0);
  std::this_thread::sleep_for(kOpenFor);
  const double ending = unix_time();
  ST_ASSERT_VALUE(auto done, shell_->exchange(id, 1000));
  EXPECT_EQ(done.digest, done.expected_digest);
  ST_ASSERT_OK(shell_->close(id));
  const json flow = closed_flow(source);
  const double ended = unix_time();
  expect_between(asked, flow["start"], open);
  expect_between(ending, flow["end"], ended);
}

TEST_P(CloseTest, orderly_end_after_large_exchange) {
  const int id = connected(kEcho, api_->v4);
  const std::string source = source_of(*shell_, id);
  ST_ASSERT_VALUE(auto done, shell_->exchange(id, 3'000'000));
  EXPECT_EQ(done.digest, done.expected_digest);
  ST_ASSERT_OK(shell_->close(id));
  flow_says(source, "fin", 3'000'000, 3'000'000);
}

TEST_P(CloseTest, half_closed_connection_gets_its_answer) {
  const int id = connected(kHash, api_->v6);
  const std::string source = source_of(*shell_, id);
  ST_ASSERT_VALUE(auto sent, shell_->command(fmt::format("send {} len=1000000 seed=3", id)));
  EXPECT_EQ(sent["sent"], 1'000'000);
  ST_ASSERT_OK(shell_->shutdown(id));
  ST_ASSERT_VALUE(auto answer, shell_->receive(id, 1000));
  EXPECT_TRUE(answer.text.starts_with("1000000 ")) << answer.text;
  ST_ASSERT_OK(shell_->close(id));
  flow_says(source, "fin", 1'000'000, answer.text.size());
}

TEST_P(CloseTest, server_that_speaks_first) {
  const int id = connected(kGreeting, api_->v4);
  const std::string source = source_of(*shell_, id);
  ST_ASSERT_VALUE(auto hello, shell_->receive(id, 7));
  EXPECT_EQ(hello.text, "hello\r\n");
  ST_ASSERT_OK(shell_->shutdown(id));
  ST_ASSERT_VALUE(auto end, shell_->receive_to_end(id));
  EXPECT_EQ(end.error_number, 0);
  EXPECT_EQ(end.length, 0U);
  ST_ASSERT_OK(shell_->close(id));
  flow_says(source, "fin", 0, 7);
}

TEST_P(CloseTest, server_that_closes_first) {
  const int id = connected(kWhoami, api_->v4);
  const std::string source = source_of(*shell_, id);
  ST_ASSERT_VALUE(auto seen, shell_->receive_to_end(id));
  EXPECT_EQ(seen.error_number, 0);
  ST_ASSERT_OK(shell_->close(id));
  flow_says(source, "fin", 0, seen.length);
}

TEST_P(CloseTest, reset_by_the_client) {
  const int id = connected(kEcho, api_->v4);
  const std::string source = source_of(*shell_, id);
  ST_ASSERT_OK(shell_->send(id, "ping"));
  ST_ASSERT_VALUE(auto pong, shell_->receive(id, 4));
  EXPECT_EQ(pong.text, "ping");
  ST_ASSERT_OK(shell_->close(id, CloseHow::kReset));
  flow_says(source, "rst_local", 4, 4);
}

TEST_P(CloseTest, reset_by_the_server) {
  const int id = connected(kReset, api_->v4);
  const std::string source = source_of(*shell_, id);
  ST_ASSERT_OK(shell_->send(id, "x"));
  ST_ASSERT_VALUE(auto end, shell_->receive_to_end(id));
  EXPECT_EQ(end.error_number, ECONNRESET);
  ST_ASSERT_OK(shell_->close(id));
  flow_says(source, "rst_remote", 1, 0);
}

TEST_P(CloseTest, reset_reaches_the_server) {
  ST_ASSERT_VALUE(auto server, PodShell::start(place(*spare_)));
  ST_ASSERT_VALUE(auto listening, server->listen("::", 8080));
  const int id = connected(8080, spare_->v4);
  ST_ASSERT_VALUE(auto accepted, server->accept(listening.id));
  ST_ASSERT_OK(shell_->send(id, "ping"));
  ST_ASSERT_VALUE(auto ping, server->receive(accepted.id, 4));
  EXPECT_EQ(ping.text, "ping");
  ST_ASSERT_OK(shell_->close(id, CloseHow::kReset));
  ST_ASSERT_VALUE(auto end, server->receive_to_end(accepted.id));
  EXPECT_EQ(end.error_number, ECONNRESET);
}

// A deviation that docs/deviations.md lists: redirected, connect() succeeds and the refusal is a
// reset.
TEST_P(CloseTest, refused) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kClosed, {.bind = web_->v4 + "/4400"}));
  if (!redirected()) {
    EXPECT_EQ(socket.errno_name, "ECONNREFUSED");
  } else if (socket.errno_name != "ECONNRESET") {  // else it came before connect() returned
    EXPECT_EQ(socket.errno_name, "");
    ST_ASSERT_VALUE(auto end, shell_->receive_to_end(socket.id));
    EXPECT_EQ(end.error_number, ECONNRESET);
  }
  flow_says(endpoint_text(web_->v4, 4400), "refused", 0, 0);
}

TEST_P(CloseTest, timed_out) {
  // api gets what is for this address and does not forward: nobody answers.
  ST_ASSERT_OK(lab_->node().ip(fmt::format("route replace 10.99.0.1/32 via {} dev br0", api_->v4)));
  ST_ASSERT_OK(web_->netns.write_sysctl("ipv4/tcp_syn_retries", "1"));
  ST_ASSERT_VALUE(auto socket,
                  shell_->connect("10.99.0.1", 80,
                                  {.bind = web_->v4 + "/4401", .timeout = milliseconds(20'000)}));
  if (redirected()) {
    EXPECT_EQ(socket.errno_name, "");
    ST_ASSERT_VALUE(auto end,
                    shell_->command(fmt::format("recv {} 1 timeout_ms=20000", socket.id)));
    EXPECT_EQ(end["errno_name"], "ECONNRESET");
  } else {
    EXPECT_EQ(socket.errno_name, "ETIMEDOUT");
  }
  flow_says(endpoint_text(web_->v4, 4401), "timeout", 0, 0);
}

TEST_P(CloseTest, killed) {
  const int id = connected(kEcho, api_->v4);
  const std::string source = source_of(*shell_, id);
  ST_ASSERT_OK(shell_->send(id, "ping"));
  ST_ASSERT_VALUE(auto pong, shell_->receive(id, 4));
  EXPECT_EQ(pong.text, "ping");
  ST_ASSERT_VALUE(auto own, shell_->socket_name(id));
  ST_ASSERT_VALUE(
      auto killed,
      run_command({.arguments = {"ss", "-K", "-Htn", fmt::format("sport = :{}", own.port)},
                   .netns_path = web_->netns.path()}));
  EXPECT_EQ(killed.exit_status, 0) << killed.output;
  ST_ASSERT_VALUE(auto end, shell_->receive_to_end(id));
  EXPECT_EQ(end.error_number, ECONNABORTED);
  flow_says(source, "killed", 4, 4);
}

INSTANTIATE_TEST_SUITE_P(Modes, CloseTest, testing::Values("redirect", "passthrough"),
                         [](const auto& mode) { return std::string(mode.param); });

class FlowRingTest : public Mesh {
 protected:
  // Records that the agent has taken out of the ring, ever.
  [[nodiscard]] std::uint64_t received() const {
    const auto page = sidetrack_->get("/v1/flows?after=9000000000000000000");
    return page ? page->value("next_sequence", std::uint64_t{0}) : 0;
  }
  [[nodiscard]] std::uint64_t dropped() const {
    const auto answer = sidetrack_->get("/v1/counters");
    for (const json& row : answer ? (*answer)["counters"] : json::array()) {
      if (row["namespace"] == "shop") {
        return row.value("flows_dropped", std::uint64_t{0});
      }
    }
    return 0;
  }
};

TEST_F(FlowRingTest, counts_what_a_full_ring_loses_and_cuts_nothing) {
  constexpr std::uint64_t kRoom = ST_FLOW_RING_BYTES / (sizeof(st_flow) + BPF_RINGBUF_HDR_SZ);
  constexpr std::uint64_t kEach = 10'000;  // no more than there are local ports
  const std::vector<std::pair<std::string, std::uint16_t>> servers = {
      {api_->v4, kEcho}, {api_->v6, kEcho}, {api_->v4, kEchoToo}, {api_->v6, kEchoToo}};
  const std::uint64_t closed = kEach * servers.size();
  ASSERT_GT(closed, kRoom);
  label(kMode, "passthrough");
  const std::uint64_t received_before = received();
  ASSERT_GT(received_before, 0U);
  ASSERT_EQ(dropped(), 0U);
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGSTOP));
  for (const auto& [server, port] : servers) {
    ST_ASSERT_VALUE(const auto burst, shell_->burst(server, port, {.count = kEach, .threads = 2}));
    EXPECT_EQ(burst.ok, kEach) << server;
    EXPECT_EQ(burst.connect_errors, Counts()) << server;
    EXPECT_EQ(burst.io_errors, Counts()) << server;
  }
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGCONT));
  EXPECT_TRUE(
      eventually(kPatience, [&] { return received() - received_before + dropped() == closed; }))
      << received() - received_before << " received, " << dropped() << " dropped";
  EXPECT_GE(dropped(), closed - kRoom);
  // There is room again.
  const std::uint64_t lost = dropped();
  ST_ASSERT_VALUE(const auto burst, shell_->burst(api_->v4, kHttps, {.count = 100}));
  EXPECT_EQ(burst.ok, 100U);
  EXPECT_TRUE(eventually(kPatience, [&] {
    return received() - received_before + lost == closed + 100;
  })) << received();
  EXPECT_EQ(dropped(), lost);
}

}  // namespace
}  // namespace sidetrack::lab
