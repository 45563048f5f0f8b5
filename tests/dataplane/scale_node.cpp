// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/scale_node.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

namespace sidetrack::lab {

using nlohmann::json;

void ScaleNode::SetUp() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("scale"));
  cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
  ST_ASSERT_VALUE(auto folder, TempDir::create("objects"));
  folder_ = std::make_unique<TempDir>(std::move(folder));
  objects_ = std::make_unique<Objects>(folder_->path());
  ST_ASSERT_VALUE(lab_, Lab::create("scale"));
  ST_ASSERT_OK(
      objects_->put(NamespaceSpec{.name = "shop", .labels = {{"sidetrack.io/mode", "redirect"}}}));
}

Pod& ScaleNode::plain_pod(const std::string& name) {
  auto pod = lab_->add_pod(name);
  // Without a pod there is nothing that a test could go on with.
  return *(pod ? *pod : throw std::runtime_error(pod.error().message));
}

Pod& ScaleNode::meshed_pod(const std::string& name, const StringMap& annotations) {
  Pod& pod = plain_pod(name);
  const auto put = objects_->put(PodSpec{.namespace_name = "shop",
                                         .name = name,
                                         .netns_path = pod.netns.path(),
                                         .addresses = {pod.v4, pod.v6},
                                         .annotations = annotations});
  EXPECT_TRUE(put.has_value()) << put.error().message;
  return pod;
}

void ScaleNode::make_sidetrack(SidetrackOptions options) {
  options.objects_folder = objects_->folder().string();
  options.netns_path = lab_->node().path();
  ST_ASSERT_VALUE(sidetrack_, Sidetrack::create(*cgroup_, options));
}

void ScaleNode::start_sidetrack(SidetrackOptions options) {
  ASSERT_NO_FATAL_FAILURE(make_sidetrack(std::move(options)));
  ST_ASSERT_OK(sidetrack_->start());
}

void ScaleNode::wait_until_enrolled(const std::string& pod, const std::string& mode) {
  ST_ASSERT_OK(
      sidetrack_->wait_for_pod("shop/" + pod, "enrolled", mode, scaled(milliseconds(30'000))));
}

std::unique_ptr<PodShell> ScaleNode::shell_in(const Pod& pod) {
  auto shell = PodShell::start(place(pod));
  return shell ? std::move(*shell) : throw std::runtime_error(shell.error().message);
}

std::unique_ptr<EchoServer> ScaleNode::echo_in(const Pod& pod,
                                               const std::vector<std::string>& listeners) {
  auto echo = EchoServer::start(place(pod), listeners);
  return echo ? std::move(*echo) : throw std::runtime_error(echo.error().message);
}

std::uint64_t ScaleNode::counted(const std::string& reason) const {
  const auto answer = sidetrack_->get("/v1/counters");
  EXPECT_TRUE(answer.has_value()) << answer.error().message;
  if (!answer) {
    return 0;
  }
  for (const json& entry : answer->value("counters", json::array())) {
    if (entry.value("namespace", "") == "shop") {
      return entry.value("connections", json::object()).value(reason, std::uint64_t{0});
    }
  }
  return 0;
}

std::string ScaleNode::explain(const std::string& pod, const std::string& destination) const {
  const auto answer =
      sidetrack_->get("/v1/explain?namespace=shop&pod=" + pod + "&destination=" + destination);
  if (!answer) {
    return answer.error().message;
  }
  return answer->value("verdict", "") + "/" + answer->value("reason", "") +
         (answer->value("agrees_with_kernel", false) ? "" : "!");
}

std::uint64_t ScaleNode::map_entries(const std::string& map) const {
  const auto answer = sidetrack_->get("/v1/status");
  EXPECT_TRUE(answer.has_value()) << answer.error().message;
  if (answer) {
    for (const json& entry : answer->value("maps", json::array())) {
      if (entry.value("map", "") == map) {
        return entry.value("entries", std::uint64_t{0});
      }
    }
  }
  return 0;
}

}  // namespace sidetrack::lab
