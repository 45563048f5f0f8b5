// SPDX-License-Identifier: Apache-2.0
// `sidetrack-agent leave`, which the chart's pod runs before it is ended: what it clears, and when.
#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "sidetrack/abi/types.h"
#include "tests/dataplane/kernel_view.h"
#include "tests/kubernetes/agent_with_plugin.h"

namespace sidetrack::tests {
namespace {

class AgentLeaveTest : public AgentWithPlugin {
 protected:
  void TearDown() override {
    if (sidetrack_ && !IsSkipped()) {
      (void)sidetrack_->agent().signal(SIGCONT);  // NOLINT: it may not have been started
    }
    AgentWithPlugin::TearDown();
  }

  void hang() const { ST_ASSERT_OK(sidetrack_->agent().signal(SIGSTOP)); }

  [[nodiscard]] lab::CommandResult leave(const std::string& namespace_name = "sidetrack") const {
    const std::string config = folder_->file("leave.conf");
    std::ofstream(config) << fmt::format(
        "kubeconfig = {}\ndaemonset = sidetrack\nnamespace = {}\nstate-dir = {}\n"
        "cache-dir = {}\npin-dir = {}\ncni-conf-dir = {}\ncni-bin-dir = {}\n",
        folder_->file("kubeconfig"), namespace_name, sidetrack_->state_dir(),
        sidetrack_->cache_dir(), sidetrack_->pin_dir(), folder_->file("net.d"),
        folder_->file("bin"));
    const auto done = lab::run_command(
        {.arguments = {lab::built_program("sidetrack-agent"), "leave", "--config", config},
         .within = std::chrono::seconds(30)});  // half of the pod's grace
    EXPECT_TRUE(done) << done.error().message;
    return done ? *done : lab::CommandResult{.exit_status = -1};
  }

  [[nodiscard]] int mode_in_kernel() const {
    const auto row = lab::KernelView(sidetrack_->pin_dir()).pod(*pod_->netns.cookie());
    EXPECT_TRUE(row) << row.error().message;
    return row ? row->mode : -1;
  }
  void expect_unchanged() const {
    EXPECT_TRUE(is_chained()) << configuration();
    EXPECT_NE(mode_in_kernel(), ST_MODE_DISABLED);
  }
  void expect_cleared() const {
    EXPECT_EQ(configuration(), kMain);
    EXPECT_EQ(mode_in_kernel(), ST_MODE_DISABLED);
    EXPECT_FALSE(std::filesystem::exists(plugin()));
  }
};

TEST_F(AgentLeaveTest, clears_a_node_whose_agent_hangs_when_its_daemonset_is_gone) {
  remove_daemonset();
  hang();
  const auto left = leave();
  EXPECT_EQ(left.exit_status, 0) << left.output;
  expect_cleared();
}

// What `helm uninstall` does: the token is worth nothing any more when the pod is ended.
TEST_F(AgentLeaveTest, clears_a_node_whose_agent_hangs_when_its_rights_are_gone) {
  hang();
  write_token("of-nobody");
  const auto left = leave();
  EXPECT_EQ(left.exit_status, 0) << left.output;
  expect_cleared();
}

// And before that: the rights are gone, and for ten seconds the API server believes in the account.
TEST_F(AgentLeaveTest, clears_a_node_when_first_its_rights_go_and_then_its_account) {
  hang();
  const auto forgotten = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  proxy_->set_rule([=](const HttpRequest& request, Answer& answer) {
    const bool is_known = std::chrono::steady_clock::now() < forgotten;
    return is_known ? answer_with(403, "Forbidden")(request, answer)
                    : answer_with(401, "Unauthorized")(request, answer);
  });
  const auto left = leave();
  EXPECT_EQ(left.exit_status, 0) << left.output;
  expect_cleared();
}

// Whoever wrote the rights by hand may have left out this one.
TEST_F(AgentLeaveTest, changes_nothing_where_it_may_not_ask) {
  hang();
  const auto left = leave("shop");
  EXPECT_EQ(left.exit_status, 1);
  EXPECT_NE(left.output.find("does not say whether DaemonSet shop/sidetrack is there"),
            std::string::npos)
      << left.output;
  expect_unchanged();
}

TEST_F(AgentLeaveTest, needs_to_know_of_which_daemonset) {
  hang();
  const auto left = leave("");
  EXPECT_EQ(left.exit_status, 2);
  EXPECT_NE(left.output.find("--namespace is missing"), std::string::npos) << left.output;
  expect_unchanged();
}

TEST_F(AgentLeaveTest, leaves_an_upgrade_alone) {
  hang();
  const auto left = leave();
  EXPECT_EQ(left.exit_status, 0);
  EXPECT_NE(left.output.find("DaemonSet sidetrack/sidetrack is there"), std::string::npos)
      << left.output;
  expect_unchanged();
}

TEST_F(AgentLeaveTest, leaves_the_work_to_an_agent_that_answers) {
  remove_daemonset();
  const auto left = leave();
  EXPECT_EQ(left.exit_status, 0);
  EXPECT_NE(left.output.find("the agent answers"), std::string::npos) << left.output;
  expect_unchanged();
}

TEST_F(AgentLeaveTest, changes_nothing_where_nobody_can_say) {
  remove_daemonset();
  hang();
  proxy_->server().go_away();
  const auto left = leave();
  EXPECT_EQ(left.exit_status, 1);
  EXPECT_NE(left.output.find("does not say whether DaemonSet sidetrack/sidetrack is there"),
            std::string::npos)
      << left.output;
  expect_unchanged();
}

}  // namespace
}  // namespace sidetrack::tests
