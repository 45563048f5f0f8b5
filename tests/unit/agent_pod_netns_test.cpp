// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/main/pod_netns.h"

namespace sidetrack::agent {
namespace {

class PodNetnsTest : public testing::Test {
 protected:
  PodNetnsTest() {
    kube::Pod pod;
    pod.metadata = {.name = "web", .namespace_name = "shop", .uid = "u1"};
    pod.node_name = "n1";
    pod.addresses = {"10.0.0.5"};
    objects_.pods["shop/web"] = pod;
    intents_.resize(1);
    intents_[0].namespace_name = "shop";
    intents_[0].name = "web";
    intents_[0].state = policy::PodState::kEnrol;
  }
  kube::Pod& web() { return objects_.pods["shop/web"]; }
  [[nodiscard]] std::size_t known() const { return known_pods(objects_, "n1").size(); }

  kube::ObjectSet objects_;
  std::vector<policy::PodIntent> intents_;
  pods::NodeProcesses processes_;
  PodNetns netns_{{.list_processes = [this]() -> Result<pods::NodeProcesses> { return processes_; },
                   .open_netns = [](std::int64_t) -> Result<UniqueFd> {
                     return make_error(ErrorCode::kNotFound, "gone");
                   },
                   .list_addresses = [](int) -> Result<std::vector<std::string>> {
                     return std::vector<std::string>();
                   },
                   .node_netns = 1},
                  "n1"};
};

TEST_F(PodNetnsTest, looks_for_the_nodes_pods_that_have_a_namespace) {
  EXPECT_EQ(known(), 1U);
  web().host_network = true;
  EXPECT_EQ(known(), 0U);
  web().host_network = false;
  web().phase = "Succeeded";
  EXPECT_EQ(known(), 0U);
  web().phase = "Running";
  web().node_name = "n2";
  EXPECT_EQ(known(), 0U);
}

TEST_F(PodNetnsTest, a_static_pod_goes_by_the_hash_of_its_manifest) {
  EXPECT_EQ(kubelet_uid(web()), "u1");
  web().metadata.annotations["kubernetes.io/config.hash"] = "abc";
  EXPECT_EQ(kubelet_uid(web()), "u1") << "anybody may write that annotation";
  web().metadata.annotations["kubernetes.io/config.mirror"] = "abc";
  EXPECT_EQ(kubelet_uid(web()), "abc");
}

TEST_F(PodNetnsTest, says_why_a_pod_has_none) {
  netns_.look(objects_, pods::Clock::now());
  netns_.fill(objects_, intents_);
  EXPECT_EQ(intents_[0].netns_path, "");
  EXPECT_NE(intents_[0].netns_problem.find("none of its processes"), std::string::npos);
}

TEST_F(PodNetnsTest, gives_the_plugins_namespace_to_the_pod_of_that_uid) {
  netns_.table().attach("c1/eth0", "u1", UniqueFd(memfd_create("netns", MFD_CLOEXEC)),
                        pods::Clock::now());
  netns_.fill(objects_, intents_);
  EXPECT_NE(intents_[0].netns_path, "");
  web().metadata.uid = "u2";  // made again under the same name
  netns_.fill(objects_, intents_);
  EXPECT_EQ(intents_[0].netns_path, "");
}

TEST_F(PodNetnsTest, believes_in_a_sandbox_only_with_a_runtime_class) {
  processes_.of_pods["u1"] = {{.pid = 7,
                               .container_id = "c",
                               .netns = 2,
                               .command_line = std::string("runsc-sandbox\0boot", 18)}};
  netns_.look(objects_, pods::Clock::now());
  netns_.fill(objects_, intents_);
  EXPECT_EQ(intents_[0].state, policy::PodState::kEnrol) << "any process may call itself so";
  web().runtime_class = "gvisor";
  netns_.fill(objects_, intents_);
  EXPECT_EQ(intents_[0].state, policy::PodState::kSkipped);
  EXPECT_EQ(intents_[0].reason, "sandboxed_runtime");
}

TEST_F(PodNetnsTest, does_not_know_the_runtime_of_a_class_before_its_first_process) {
  web().runtime_class = "gvisor";
  netns_.fill(objects_, intents_);
  EXPECT_FALSE(intents_[0].runtime_unseen) << "nor its namespace";
  const UniqueFd netns(memfd_create("netns", MFD_CLOEXEC));
  struct stat status {};
  ASSERT_EQ(fstat(netns.get(), &status), 0);
  netns_.table().attach("c1/eth0", "u1", UniqueFd(dup(netns.get())), pods::Clock::now());
  netns_.look(objects_, pods::Clock::now());
  netns_.fill(objects_, intents_);
  EXPECT_TRUE(intents_[0].runtime_unseen);
  EXPECT_EQ(intents_[0].runtime_problem, "");
  EXPECT_EQ(intents_[0].state, policy::PodState::kEnrol);
  web().runtime_class.clear();
  intents_[0].runtime_unseen = false;
  netns_.fill(objects_, intents_);
  EXPECT_FALSE(intents_[0].runtime_unseen);
  web().runtime_class = "nvidia";
  processes_.of_pods["u1"] = {
      {.pid = 7, .container_id = "c", .netns = status.st_ino, .command_line = "app"}};
  netns_.look(objects_, pods::Clock::now() + std::chrono::seconds(20));
  netns_.fill(objects_, intents_);
  EXPECT_FALSE(intents_[0].runtime_unseen);
}

TEST_F(PodNetnsTest, says_why_the_runtime_of_a_class_cannot_be_known) {
  web().runtime_class = "gvisor";
  netns_.table().attach("c1/eth0", "u1", UniqueFd(memfd_create("netns", MFD_CLOEXEC)),
                        pods::Clock::now());
  processes_.unseen["u1"] = "permission denied";
  netns_.look(objects_, pods::Clock::now());
  netns_.fill(objects_, intents_);
  EXPECT_TRUE(intents_[0].runtime_unseen);
  EXPECT_EQ(intents_[0].runtime_problem, "permission denied");
}

}  // namespace
}  // namespace sidetrack::agent
