// SPDX-License-Identifier: Apache-2.0
// AgentOnNode: an agent with source kubernetes before a real API server, and a pod of its node with
// process, cgroup and network namespace as a runtime makes them. Nothing of it is started.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/kubernetes/source_faults_fixture.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/lab.h"
#include "tests/lab/process.h"
#include "tests/lab/sidetrack.h"

namespace sidetrack::tests {

class AgentOnNode : public FaultsTest {
 protected:
  void SetUp() override;

  // The pod's process, by this command.
  void run_pod(const std::vector<std::string>& command = {"sleep", "600"});
  // The pod as the agent shows it.
  [[nodiscard]] nlohmann::json pod() const;
  // "NAMESPACE/web"
  [[nodiscard]] std::string pod_name() const { return namespace_ + "/web"; }

  std::string engine_ = "none";               // --engine
  std::string runtime_class_;                 // the pod's; empty: none
  std::vector<std::string> agent_arguments_;  // more of the agent's
  std::unique_ptr<lab::Lab> lab_;
  lab::Pod* pod_ = nullptr;
  std::unique_ptr<lab::TestCgroup> cgroup_;
  std::unique_ptr<lab::Sidetrack> sidetrack_;
  std::unique_ptr<lab::Process> process_;
  std::string namespace_, uid_, process_cgroup_;

 private:
  void make_pod();
};

}  // namespace sidetrack::tests
