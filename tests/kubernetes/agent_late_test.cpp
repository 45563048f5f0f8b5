// SPDX-License-Identifier: Apache-2.0
// An agent that comes after its node's pods, as after a reboot.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "tests/kubernetes/agent_on_node.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using lab::Clock;
using nlohmann::json;

class AgentLateTest : public AgentOnNode {
 protected:
  // The pod runs for two seconds at least before there is an agent, which asks the server itself.
  void SetUp() override {
    AgentOnNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    write_kubeconfig(api_->url());
    ASSERT_NO_FATAL_FAILURE(run_pod());
    const auto started = Clock::now();
    ASSERT_TRUE(lab::eventually(10s, [&] { return Clock::now() - started > 2s; }));
  }

  // What an agent before this one has left on the node's disk.
  void enrolled_before() const {
    std::filesystem::create_directories(sidetrack_->cache_dir());
    std::ofstream(sidetrack_->cache_dir() + "/enrolled-namespaces") << namespace_ << "\n";
  }

  [[nodiscard]] std::uint64_t late_pods() const {
    const auto got = sidetrack_->get("/v1/status");
    return got ? (*got)["kubernetes"].value("pods_captured_late", std::uint64_t{0}) : 0;
  }
  // Of this reason, in a namespace.
  [[nodiscard]] json events(const std::string& where, const std::string& reason) const {
    std::string body;
    api_->call("GET", "/api/v1/namespaces/" + where + "/events?fieldSelector=reason%3D" + reason,
               "", &body);
    json found = json::array();
    const json list = json::parse(body);
    for (const json& event : list["items"]) {
      if (event["reportingInstance"] == node_) {
        found.push_back(event);
      }
    }
    return found;
  }
};

TEST_F(AgentLateTest, tells_of_a_pod_that_ran_before_it_once) {
  enrolled_before();
  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_TRUE(
      lab::eventually(lab::kPatience, [&] { return pod().value("captured_late_s", 0) >= 2; }))
      << pod().dump(2) << sidetrack_->logs();
  EXPECT_EQ(late_pods(), 1U);
  ASSERT_TRUE(lab::eventually(
      lab::kPatience, [&] { return events(namespace_, "SidetrackCapturedLate").size() == 1; }));
  const json event = events(namespace_, "SidetrackCapturedLate")[0];
  EXPECT_EQ(event["involvedObject"]["uid"], uid_);
  // The row is there now: the next agent has nothing to tell.
  sidetrack_->agent().kill_hard();
  ST_ASSERT_OK(sidetrack_->start_agent());
  ST_ASSERT_OK(sidetrack_->wait_for_pod(pod_name(), "enrolled", "passthrough"));
  EXPECT_EQ(pod()["captured_late_s"], 0);
  EXPECT_EQ(late_pods(), 0U);
}

// The list tells the plugin when an agent was there last; one that finds it as it should be does
// not write it.
TEST_F(AgentLateTest, keeps_the_list_of_enrolled_namespaces_fresh) {
  ST_ASSERT_OK(sidetrack_->start_agent());
  ST_ASSERT_OK(sidetrack_->wait_for_pod(pod_name(), "enrolled", "passthrough"));
  sidetrack_->agent().kill_hard();
  const std::string list = sidetrack_->cache_dir() + "/enrolled-namespaces";
  const auto old = std::filesystem::last_write_time(list) - 24h;
  const auto is_fresh = [&] { return std::filesystem::last_write_time(list) > old + 23h; };
  std::filesystem::last_write_time(list, old);
  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_TRUE(lab::eventually(lab::kPatience, is_fresh)) << sidetrack_->logs();
  std::filesystem::last_write_time(list, old);
  EXPECT_TRUE(lab::eventually(lab::scaled(40s), is_fresh)) << sidetrack_->logs();
}

TEST_F(AgentLateTest, tells_nothing_of_a_namespace_that_nobody_had_enrolled) {
  ST_ASSERT_OK(sidetrack_->start_agent());
  ST_ASSERT_OK(sidetrack_->wait_for_pod(pod_name(), "enrolled", "passthrough"));
  // It is judged every two seconds; the problem below comes by the same way, a minute later.
  ASSERT_TRUE(lab::eventually(lab::scaled(90s), [&] {
    return events("default", "SidetrackDegraded").size() == 1;
  })) << sidetrack_->logs();
  const std::string message = events("default", "SidetrackDegraded")[0]["message"];
  EXPECT_NE(message.find("cni: no network configuration in"), std::string::npos) << message;
  EXPECT_EQ(late_pods(), 0U);
  EXPECT_EQ(pod()["captured_late_s"], 0);
}

}  // namespace
}  // namespace sidetrack::tests
