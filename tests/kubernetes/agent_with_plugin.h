// SPDX-License-Identifier: Apache-2.0
// AgentWithPlugin: a node whose agent, behind the fault proxy, has its plugin in the CNI
// configuration and a pod in the kernel, and whose DaemonSet is there.
#pragma once

#include <fstream>
#include <string>

#include "sidetrack/files/whole_file.h"
#include "tests/kubernetes/agent_on_node.h"

namespace sidetrack::tests {

class AgentWithPlugin : public AgentOnNode {
 protected:
  void SetUp() override {
    AgentOnNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    std::ofstream(conflist()) << kMain;
    ST_ASSERT_OK(api_->make_daemonset("sidetrack"));
    ASSERT_NO_FATAL_FAILURE(run_pod());
    ST_ASSERT_OK(sidetrack_->start_agent());
    ST_ASSERT_OK(sidetrack_->wait_for_pod(pod_name(), "enrolled", "passthrough"));
    ASSERT_TRUE(lab::eventually(lab::kPatience, [&] { return is_chained(); }));
  }
  void TearDown() override { remove_daemonset(); }

  static void remove_daemonset() {
    if (api_) {
      api_->call("DELETE", "/apis/apps/v1/namespaces/sidetrack/daemonsets/sidetrack");
    }
  }

  [[nodiscard]] std::string conflist() const {
    return folder_->file("net.d") + "/10-main.conflist";
  }
  [[nodiscard]] std::string configuration() const {
    return files::read_file(conflist()).value_or({}).text;
  }
  [[nodiscard]] bool is_chained() const {
    return configuration().find("sidetrack-cni") != std::string::npos;
  }
  [[nodiscard]] std::string plugin() const { return folder_->file("bin") + "/sidetrack-cni"; }

  // The configuration as it was found.
  static constexpr const char* kMain =
      "{\"cniVersion\": \"1.0.0\", \"name\": \"main\", \"plugins\": [{\"type\": \"bridge\"}]}\n";
};

}  // namespace sidetrack::tests
