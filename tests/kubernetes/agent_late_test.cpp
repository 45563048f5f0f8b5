// SPDX-License-Identifier: Apache-2.0
// An agent that comes after its node's pods, as after a reboot: against a real API server, with a
// pod's process, cgroup and network namespace as a runtime makes them.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "tests/kubernetes/source_faults_fixture.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/lab.h"
#include "tests/lab/process.h"
#include "tests/lab/sidetrack.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using lab::Clock;
using nlohmann::json;

class AgentLateTest : public FaultsTest {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    FaultsTest::SetUp();
    if (IsSkipped()) {
      return;
    }
    write_kubeconfig(fmt::format("https://127.0.0.1:{}", api_->port()));
    for (const char* name : {"net.d", "bin"}) {
      std::filesystem::create_directory(folder_->path() / name);
    }
    ST_ASSERT_VALUE(lab_, lab::Lab::create("late"));
    ST_ASSERT_VALUE(pod_, lab_->add_pod("web"));
    ST_ASSERT_VALUE(auto cgroup, lab::TestCgroup::create("late"));
    cgroup_ = std::make_unique<lab::TestCgroup>(std::move(cgroup));
    ST_ASSERT_VALUE(sidetrack_,
                    lab::Sidetrack::create(
                        *cgroup_, {.node_name = node_,
                                   .engine = "none",
                                   .agent_arguments = {"--source", "kubernetes", "--kubeconfig",
                                                       folder_->file("kubeconfig"),
                                                       "--cni-conf-dir", folder_->file("net.d"),
                                                       "--cni-bin-dir", folder_->file("bin")}}));
    namespace_ = "late-" + node_;
    ASSERT_NO_FATAL_FAILURE(make_pod());
    ASSERT_NO_FATAL_FAILURE(run_pod());
  }

  void make_pod() {
    ST_ASSERT_OK(api_->create(
        "/api/v1/namespaces",
        json{{"metadata", {{"name", namespace_}, {"labels", {{"sidetrack.io/mode", "redirect"}}}}}}
            .dump()));
    const std::string pods = "/api/v1/namespaces/" + namespace_ + "/pods";
    ST_ASSERT_OK(api_->create(
        pods,
        json{{"metadata", {{"name", "web"}}},
             {"spec", {{"nodeName", node_}, {"containers", {{{"name", "c"}, {"image", "i"}}}}}}}
            .dump()));
    std::string body;
    const auto outcome = api_->call(
        "PATCH", pods + "/web/status",
        json{{"status",
              {{"phase", "Running"}, {"podIP", pod_->v4}, {"podIPs", {{{"ip", pod_->v4}}}}}}}
            .dump(),
        &body);
    ASSERT_TRUE(outcome.ok()) << outcome.body;
    uid_ = json::parse(body)["metadata"]["uid"];
  }

  // Its process, for two seconds at least.
  void run_pod() {
    std::string path;
    for (const std::string& name : {std::string("kubepods"), "pod" + uid_, std::string("c1")}) {
      path += path.empty() ? name : "/" + name;
      ST_ASSERT_VALUE(const auto made, cgroup_->child(path));
      process_cgroup_ = made;
    }
    ST_ASSERT_VALUE(process_, lab::Process::start({.arguments = {"sleep", "600"},
                                                   .netns_path = pod_->netns.path(),
                                                   .cgroup_path = process_cgroup_}));
    const auto started = Clock::now();
    ASSERT_TRUE(lab::eventually(10s, [&] { return Clock::now() - started > 2s; }));
  }

  // What an agent before this one has left on the node's disk.
  void enrolled_before() const {
    std::filesystem::create_directories(sidetrack_->cache_dir());
    std::ofstream(sidetrack_->cache_dir() + "/enrolled-namespaces") << namespace_ << "\n";
  }

  [[nodiscard]] json pod() const {
    const auto got = sidetrack_->pod(namespace_ + "/web");
    return got ? *got : json::object();
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

  std::unique_ptr<lab::Lab> lab_;
  lab::Pod* pod_ = nullptr;
  std::unique_ptr<lab::TestCgroup> cgroup_;
  std::unique_ptr<lab::Sidetrack> sidetrack_;
  std::unique_ptr<lab::Process> process_;
  std::string namespace_, uid_, process_cgroup_;
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
  ST_ASSERT_OK(sidetrack_->wait_for_pod(namespace_ + "/web", "enrolled", "passthrough"));
  EXPECT_EQ(pod()["captured_late_s"], 0);
  EXPECT_EQ(late_pods(), 0U);
}

TEST_F(AgentLateTest, tells_nothing_of_a_namespace_that_nobody_had_enrolled) {
  ST_ASSERT_OK(sidetrack_->start_agent());
  ST_ASSERT_OK(sidetrack_->wait_for_pod(namespace_ + "/web", "enrolled", "passthrough"));
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
