// SPDX-License-Identifier: Apache-2.0
// What both ends of a connection see when the engine in its middle is killed: a reset, never an end
// of stream that nobody sent, and nothing lost of a stream that was complete.
#include <fmt/format.h>

#include <cstdio>
#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

// More than a reader that does not read takes, less than that and what a sender's socket holds.
constexpr std::uint64_t kMuch = 100'000;
constexpr unsigned kFinWait1 = 4;  // as /proc/net/tcp writes it

class EngineKilled : public FaultNode {
 protected:
  static constexpr std::uint16_t kServer = 7100;

  void SetUp() override {
    FaultNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    start_echo();
    ASSERT_NO_FATAL_FAILURE(start_sidetrack());
    server_ = shell_in(*api_);
    ST_ASSERT_VALUE(const auto listener, server_->listen(api_v4_, kServer));
    ST_ASSERT_VALUE(const auto connected, shell_->connect(api_v4_, kServer));
    ST_ASSERT_VALUE(const auto accepted, server_->accept(listener.id));
    ASSERT_EQ(connected.error_number, 0) << sidetrack_->logs();
    client_id_ = connected.id;
    server_id_ = accepted.id;
  }

  // `text` from the server to the client, through the engine.
  void pass_to_client(const std::string& text) {
    ST_ASSERT_OK(server_->send(server_id_, text));
    ST_ASSERT_VALUE(const auto got, shell_->receive(client_id_, text.size()));
    EXPECT_EQ(got.text, text);
  }
  void send_much(PodShell& shell, int id) {
    ST_ASSERT_VALUE(const auto sent,
                    shell.command(fmt::format("send {} len={} seed=7", id, kMuch)));
    EXPECT_EQ(sent.value("sent", std::uint64_t{0}), kMuch) << sent;
    ST_ASSERT_OK(shell.shutdown(id));
  }
  struct Ports {
    unsigned low;
    unsigned high;
    [[nodiscard]] bool contain(unsigned port) const { return port >= low && port <= high; }
  };
  static constexpr Ports kListeners{.low = 15900, .high = 15999};
  static constexpr Ports kAny{.low = 0, .high = 65535};
  // A socket between such ports in the client's pod has FIN to deliver, and something before it.
  [[nodiscard]] bool is_finishing(Ports local, Ports remote) const {
    std::ifstream table(fmt::format("/proc/{}/net/tcp", shell_->process().pid()));
    std::string line;
    std::getline(table, line);
    while (std::getline(table, line)) {
      unsigned here = 0;
      unsigned there = 0;
      unsigned state = 0;
      if (std::sscanf(line.c_str(), "%*d: %*8x:%x %*8x:%x %x", &here, &there, &state) == 3 &&
          state == kFinWait1 && local.contain(here) && remote.contain(there)) {
        return true;
      }
    }
    return false;
  }

  std::unique_ptr<PodShell> server_;
  int client_id_ = 0;
  int server_id_ = 0;
};

TEST_F(EngineKilled, resets_both_ends_in_the_middle_of_a_stream) {
  pass_to_client("first part");
  sidetrack_->engine().kill_hard();
  ST_ASSERT_VALUE(const auto at_client, shell_->receive(client_id_, 1));
  EXPECT_EQ(at_client.error_number, ECONNRESET) << at_client.length;
  ST_ASSERT_VALUE(const auto at_server, server_->receive(server_id_, 1));
  EXPECT_EQ(at_server.error_number, ECONNRESET) << at_server.length;
  // The flow is over, though the application has not closed its socket.
  ST_ASSERT_VALUE(const auto flows, sidetrack_->get("/v1/flows?namespace=shop"));
  ASSERT_EQ(flows["flows"].size(), 1U) << flows;
  EXPECT_EQ(flows["flows"][0].value("close", ""), "rst_remote") << flows;
  EXPECT_EQ(flows["flows"][0].value("bytes_in", 0), 10) << flows;
}

TEST_F(EngineKilled, leaves_what_has_arrived_to_be_read_before_the_reset) {
  ST_ASSERT_OK(server_->send(server_id_, "arrived, unread"));
  ST_ASSERT_VALUE(const auto first, shell_->receive(client_id_, 1));
  ASSERT_EQ(first.text, "a");
  sidetrack_->engine().kill_hard();
  ST_ASSERT_VALUE(const auto rest, shell_->receive(client_id_, 100));
  EXPECT_EQ(rest.text, "rrived, unread");
  EXPECT_EQ(rest.error_number, ECONNRESET);
}

// The answer is complete, most of it still in the engine's socket: FIN was sent behind it.
TEST_F(EngineKilled, loses_nothing_of_an_answer_that_was_complete) {
  send_much(*server_, server_id_);
  ASSERT_TRUE(eventually(kPatience, [&] { return is_finishing(kListeners, kAny); }));
  sidetrack_->engine().kill_hard();
  ST_ASSERT_VALUE(const auto answer, shell_->receive_to_end(client_id_));
  EXPECT_EQ(answer.error_number, 0);
  EXPECT_EQ(answer.length, kMuch);
  // The other direction had not ended.
  ST_ASSERT_VALUE(const auto at_server, server_->receive(server_id_, 1));
  EXPECT_EQ(at_server.error_number, ECONNRESET) << at_server.length;
}

TEST_F(EngineKilled, loses_nothing_of_a_request_that_was_complete_and_resets_the_client) {
  send_much(*shell_, client_id_);
  ASSERT_TRUE(eventually(kPatience, [&] { return is_finishing(kAny, {kServer, kServer}); }));
  sidetrack_->engine().kill_hard();
  ST_ASSERT_VALUE(const auto request, server_->receive_to_end(server_id_));
  EXPECT_EQ(request.error_number, 0);
  EXPECT_EQ(request.length, kMuch);
  ST_ASSERT_VALUE(const auto at_client, shell_->receive(client_id_, 1));
  EXPECT_EQ(at_client.error_number, ECONNRESET) << at_client.length;
}

// Not accepted yet, in nobody's hands.
TEST_F(EngineKilled, resets_a_connection_that_it_had_not_accepted) {
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGSTOP));
  ST_ASSERT_VALUE(const auto waiting, shell_->connect(api_v4_, kEcho));
  ASSERT_EQ(waiting.error_number, 0);
  sidetrack_->engine().kill_hard();
  ST_ASSERT_VALUE(const auto end, shell_->receive(waiting.id, 1));
  EXPECT_EQ(end.error_number, ECONNRESET);
}

}  // namespace
}  // namespace sidetrack::lab
