// SPDX-License-Identifier: Apache-2.0
#include "tests/kubernetes/agent_on_node.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

namespace sidetrack::tests {

using nlohmann::json;

void AgentOnNode::SetUp() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  FaultsTest::SetUp();
  if (IsSkipped()) {
    return;
  }
  for (const char* name : {"net.d", "bin"}) {
    std::filesystem::create_directory(folder_->path() / name);
  }
  ST_ASSERT_VALUE(lab_, lab::Lab::create("kube"));
  ST_ASSERT_VALUE(pod_, lab_->add_pod("web"));
  ST_ASSERT_VALUE(auto cgroup, lab::TestCgroup::create("kube"));
  cgroup_ = std::make_unique<lab::TestCgroup>(std::move(cgroup));
  std::vector<std::string> arguments = {
      "--source",       "kubernetes",           "--kubeconfig",  folder_->file("kubeconfig"),
      "--cni-conf-dir", folder_->file("net.d"), "--cni-bin-dir", folder_->file("bin")};
  arguments.insert(arguments.end(), agent_arguments_.begin(), agent_arguments_.end());
  ST_ASSERT_VALUE(sidetrack_,
                  lab::Sidetrack::create(*cgroup_, {.node_name = node_,
                                                    .engine = engine_,
                                                    .agent_arguments = std::move(arguments)}));
  namespace_ = "pods-of-" + node_;
  ASSERT_NO_FATAL_FAILURE(make_pod());
}

void AgentOnNode::make_pod() {
  ST_ASSERT_OK(api_->create(
      "/api/v1/namespaces",
      json{{"metadata", {{"name", namespace_}, {"labels", {{"sidetrack.io/mode", "redirect"}}}}}}
          .dump()));
  const std::string pods = "/api/v1/namespaces/" + namespace_ + "/pods";
  json spec = {{"nodeName", node_}, {"containers", {{{"name", "c"}, {"image", "i"}}}}};
  if (!runtime_class_.empty()) {
    spec["runtimeClassName"] = runtime_class_;
  }
  ST_ASSERT_OK(
      api_->create(pods, json{{"metadata", {{"name", "web"}}}, {"spec", std::move(spec)}}.dump()));
  std::string body;
  const auto outcome = api_->call(
      "PATCH", pods + "/web/status",
      json{
          {"status", {{"phase", "Running"}, {"podIP", pod_->v4}, {"podIPs", {{{"ip", pod_->v4}}}}}}}
          .dump(),
      &body);
  ASSERT_TRUE(outcome.ok()) << outcome.body;
  uid_ = json::parse(body)["metadata"]["uid"];
}

void AgentOnNode::run_pod(const std::vector<std::string>& command) {
  std::string path;
  for (const std::string& name : {std::string("kubepods"), "pod" + uid_, std::string("c1")}) {
    path += path.empty() ? name : "/" + name;
    ST_ASSERT_VALUE(const auto made, cgroup_->child(path));
    process_cgroup_ = made;
  }
  // Into the cgroup as what it is: an agent must not meet there what only starts the command.
  ST_ASSERT_VALUE(process_,
                  lab::Process::start({.arguments = command, .netns_path = pod_->netns.path()}));
  ST_ASSERT_OK(
      lab::write_existing(process_cgroup_ + "/cgroup.procs", std::to_string(process_->pid())));
}

json AgentOnNode::pod() const {
  const auto got = sidetrack_->pod(pod_name());
  return got ? *got : json::object();
}

}  // namespace sidetrack::tests
