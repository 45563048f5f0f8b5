// SPDX-License-Identifier: Apache-2.0
// Pods with a runtimeClassName: whether their sockets are the node's is known when something of
// them runs, and that is after the CNI plugin was answered.
#include <fmt/format.h>

#include <filesystem>
#include <set>

#include "tests/dataplane/kernel_view.h"
#include "tests/kubernetes/agent_on_node.h"
#include "tests/unit/cni_plugin_run.h"

namespace sidetrack::tests {
namespace {

using nlohmann::json;

class AgentRuntimeTest : public AgentOnNode {
 protected:
  AgentRuntimeTest() {
    engine_ = "embedded";
    runtime_class_ = "some-runtime";
  }

  void SetUp() override {
    if (api_) {
      const auto made = api_->call(
          "POST", "/apis/node.k8s.io/v1/runtimeclasses",
          json{{"metadata", {{"name", runtime_class_}}}, {"handler", runtime_class_}}.dump());
      ASSERT_TRUE(made.ok() || made.status == 409) << made.body;
    }
    AgentOnNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    ST_ASSERT_OK(sidetrack_->start());
    add();
  }

  // The plugin as a runtime calls it, which must hear that all is as it should be.
  void add() {
    const json configuration = {
        {"cniVersion", "1.0.0"},
        {"name", "net"},
        {"type", "sidetrack-cni"},
        {"socket", sidetrack_->state_dir() + "/cni.sock"},
        {"prevResult", {{"cniVersion", "1.0.0"}, {"ips", {{{"address", pod_->v4 + "/24"}}}}}}};
    const cni::Ran ran = cni::run_plugin(
        {{"CNI_COMMAND", "ADD"},
         {"CNI_CONTAINERID", "c1"},
         {"CNI_NETNS", pod_->netns.path()},
         {"CNI_IFNAME", "eth0"},
         {"CNI_PATH", "/opt/cni/bin"},
         {"CNI_ARGS",
          fmt::format("K8S_POD_NAMESPACE={};K8S_POD_NAME=web;K8S_POD_UID={}", namespace_, uid_)}},
        configuration.dump());
    ASSERT_EQ(ran.exit_status, 0) << ran.all;
    ASSERT_EQ(ran.all, ran.output) << "it starts before it is enrolled";
  }

  [[nodiscard]] bool is_redirected() const {
    const auto cookie = pod_->netns.cookie();
    const auto row = lab::KernelView(sidetrack_->pin_dir()).pod(cookie.value_or(0));
    return row && row->mode == ST_MODE_REDIRECT && row->port_v4_be[0] != 0;
  }

  // The states that it has until it has this one.
  [[nodiscard]] std::set<std::string> states_until(const std::string& last) const {
    std::set<std::string> seen;
    EXPECT_TRUE(lab::eventually(lab::kPatience, [&] {
      seen.insert(pod().value("state", ""));
      return seen.contains(last);
    })) << pod().dump(2);
    return seen;
  }
};

TEST_F(AgentRuntimeTest, redirects_a_pod_at_once_and_calls_it_enrolled_when_it_runs) {
  EXPECT_TRUE(is_redirected());
  EXPECT_EQ(pod()["state"], "pending");
  EXPECT_EQ(pod()["reason"], "runtime_not_seen");
  ASSERT_NO_FATAL_FAILURE(run_pod());
  EXPECT_TRUE(states_until("enrolled").contains("enrolled"));
  EXPECT_TRUE(is_redirected());
}

TEST_F(AgentRuntimeTest, never_calls_a_pod_enrolled_whose_runtime_is_a_sandbox) {
  const std::string sandbox = folder_->file("runsc-sandbox");
  std::filesystem::create_symlink("/bin/sleep", sandbox);
  ASSERT_NO_FATAL_FAILURE(run_pod({sandbox, "600"}));
  EXPECT_FALSE(states_until("skipped").contains("enrolled"));
  EXPECT_EQ(pod()["reason"], "sandboxed_runtime");
}

}  // namespace
}  // namespace sidetrack::tests
