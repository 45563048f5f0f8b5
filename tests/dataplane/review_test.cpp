// SPDX-License-Identifier: Apache-2.0
// Cases that a review of the programs found.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <iterator>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {
namespace {

class ReviewTest : public Mesh {};

// 5 = client, and data in the SYN without a cookie. The client has then counted the data as sent
// when the connection is established, the engine has not: they must find the same record all the
// same, else the engine's report has no socket to go to.
TEST_F(ReviewTest, data_in_the_syn_does_not_hide_the_record_from_the_engines_socket) {
  ASSERT_TRUE(web_->netns.write_sysctl("ipv4/tcp_fastopen", "5"));
  const ConnectOptions options{.fast_open = FastOpen::kSendto, .fast_open_data = "early"};
  ST_ASSERT_VALUE(const auto socket, shell_->connect(kServiceV4, kServicePort, options));
  ASSERT_EQ(socket.errno_name, "");
  ST_ASSERT_VALUE(const auto early, shell_->receive(socket.id, 5));
  EXPECT_EQ(early.text, "early") << sidetrack_->logs();
  const std::string source = source_of(*shell_, socket.id);
  ASSERT_TRUE(shell_->close(socket.id));
  const auto flow = closed_flow(source);
  EXPECT_EQ(flow.value("path", ""), "engine") << flow;
  EXPECT_THAT(flow.value("endpoint", ""),
              testing::AnyOf(endpoint_text(api_->v4, kEcho), endpoint_text(spare_->v4, kEcho)))
      << flow;
}

// A pod may listen on a port of the engine's range and close it as often as it likes: the agent is
// not bothered.
TEST_F(ReviewTest, listeners_of_applications_are_no_events) {
  ST_ASSERT_VALUE(const auto listener, shell_->listen("127.0.0.1", 15999));
  ASSERT_TRUE(shell_->close(listener.id));
  ST_ASSERT_VALUE(auto stranger, PodShell::start(place(*stranger_)));
  ST_ASSERT_VALUE(const auto socket, stranger->connect(api_->v4, kEcho));
  ASSERT_EQ(socket.errno_name, "");
  // The ring keeps the order: what came before this event has been read when it is.
  ASSERT_TRUE(eventually(std::chrono::seconds(20), [this] {
    return sidetrack_->logs().find("event=unknown_netns") != std::string::npos;
  }));
  EXPECT_EQ(sidetrack_->logs().find("event=listener_lost"), std::string::npos);
}

// A connect() that fails before its SYN leaves a row that nobody removes. Any number of them, of
// one pod, must not cost others the flow records of connections that live.
TEST_F(ReviewTest, connects_in_vain_do_not_evict_rows_of_live_connections) {
  label(kMode, "passthrough");
  ST_ASSERT_VALUE(const auto socket, shell_->connect(api_->v4, kEcho));
  const std::string source = source_of(*shell_, socket.id);
  ST_ASSERT_VALUE(const auto routed,
                  run_command({.arguments = {"ip", "route", "add", "unreachable", "203.0.113.0/24"},
                               .netns_path = web_->netns.path()}));
  EXPECT_EQ(routed.exit_status, 0) << routed.output;
  const std::string twice =
      "import socket\n"
      "for i in range(" +
      std::to_string(ST_MAX_OBSERVED * 5 / 4) +
      "):\n"
      "  s = socket.socket()\n"
      "  s.connect_ex(('203.0.113.1', 7100)); s.connect_ex(('203.0.113.1', 7100))\n"
      "  s.close()\n";
  ST_ASSERT_VALUE(const auto vain, run_command({.arguments = {"python3", "-c", twice},
                                                .netns_path = web_->netns.path(),
                                                .cgroup_path = cgroup_->path()}));
  EXPECT_EQ(vain.exit_status, 0) << vain.output;
  EXPECT_EQ(flows_from(source).size(), 1U) << "the row of a live connection was evicted";
}

// One agent per pin folder, also when their state folders differ: two would undo each other's rows.
TEST_F(ReviewTest, a_second_agent_on_the_same_pin_folder_is_refused) {
  ProcessSpec spec = sidetrack_->agent_spec();
  auto& words = spec.arguments;
  const auto option = std::find(words.begin(), words.end(), "--state-dir");
  ASSERT_NE(option, words.end());
  *std::next(option) = folder_->file("other-state");
  spec.log_file = folder_->file("second.log");
  ST_ASSERT_VALUE(auto second, Process::start(spec));
  ST_ASSERT_VALUE(const int ended, second->wait());
  EXPECT_EQ(ended, 1) << second->output();
  for (const std::string& word :
       {fmt::format("another agent (process {})", sidetrack_->agent().pid()),
        "has the pin folder " + sidetrack_->pin_dir(),
        std::string("stop it, or give this one a --pin-dir and a --cgroup of its own")}) {
    EXPECT_NE(second->output().find(word), std::string::npos) << word << "\n" << second->output();
  }
}

}  // namespace
}  // namespace sidetrack::lab
