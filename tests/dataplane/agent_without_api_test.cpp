// SPDX-License-Identifier: Apache-2.0
// An agent with source kubernetes that starts while nobody listens at the API server's address:
// what it makes of the files of its cache, and when it is ready.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include <nlohmann/json.hpp>

#include "agent/kube/object_cache.h"
#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

using kube::Resource;
using ::testing::HasSubstr;

constexpr const char* kServer = "https://127.0.0.1:1";

class AgentWithoutApi : public FaultNode {
 protected:
  // The node as an agent with source files leaves it, and this agent's command.
  ProcessSpec spec() const {
    ProcessSpec spec = sidetrack_->agent_spec();
    auto& words = spec.arguments;
    const auto objects = std::find(words.begin(), words.end(), "--objects");
    words.erase(objects, objects + 2);
    const std::string kubeconfig = folder_->file("kubeconfig");
    std::ofstream(kubeconfig) << "current-context: a\ncontexts:\n- name: a\n"
                                 "  context: {cluster: a, user: a}\nclusters:\n- name: a\n"
                                 "  cluster: {server: \""
                              << kServer << "\"}\nusers:\n- name: a\n  user: {token: a}\n";
    words.insert(words.end(), {"--source", "kubernetes", "--kubeconfig", kubeconfig});
    return spec;
  }
  // What an agent that read an empty cluster left on the disk of these.
  void save(const std::vector<Resource>& resources) const {
    kube::ObjectCache cache(sidetrack_->cache_dir() + "/kubernetes",
                            {.server = kServer, .node = SidetrackOptions{}.node_name});
    for (const Resource resource : resources) {
      cache.save(resource, cache.head(resource, "7", 1'700'000'000) + kube::ObjectCache::kTail);
    }
  }
  void expect_held(Process& agent) const {
    ST_ASSERT_OK(agent.wait_for_output("event=held"));
    ST_ASSERT_VALUE(const auto status, sidetrack_->get("/v1/status"));
    EXPECT_EQ(status.at("/agent/state"_json_pointer), "starting");
    ST_ASSERT_OK(sidetrack_->get_http("/healthz"));
    const auto ready = sidetrack_->get_http("/readyz");
    ASSERT_FALSE(ready.has_value()) << *ready;
    EXPECT_THAT(ready.error().message, HasSubstr("/readyz: 503 "));
  }
  void expect_ready(Process& agent) const {
    EXPECT_TRUE(eventually(kPatience, [&] { return sidetrack_->get_http("/readyz").has_value(); }))
        << agent.output();
    ST_ASSERT_VALUE(const auto status, sidetrack_->get("/v1/status"));
    EXPECT_EQ(status.at("/agent/state"_json_pointer), "ready");
  }

  static inline const std::vector<Resource> kAllButTheNode{
      Resource::kNamespaces, Resource::kPods, Resource::kServices, Resource::kEndpointSlices};
};

TEST_F(AgentWithoutApi, is_alive_but_not_ready_at_its_first_start) {
  ASSERT_NO_FATAL_FAILURE(make_sidetrack());
  ST_ASSERT_VALUE(auto agent, Process::start(spec()));
  expect_held(*agent);
}

TEST_F(AgentWithoutApi, is_ready_by_what_was_read_before) {
  ASSERT_NO_FATAL_FAILURE(make_sidetrack());
  save(kAllButTheNode);
  ST_ASSERT_VALUE(auto agent, Process::start(spec()));
  expect_ready(*agent);
}

TEST_F(AgentWithoutApi, leaves_what_is_in_force_while_it_does_not_know_all) {
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  sidetrack_->agent().kill_hard();
  save({Resource::kNamespaces, Resource::kServices, Resource::kEndpointSlices, Resource::kNodes});
  const st_pod before = row();
  ST_ASSERT_VALUE(auto agent, Process::start(spec()));
  expect_held(*agent);
  const st_pod held = row();
  EXPECT_EQ(std::memcmp(&before, &held, sizeof(before)), 0);
  expect_connections(3, "redirected");
}

TEST_F(AgentWithoutApi, lets_a_pod_go_that_its_files_do_not_know) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  sidetrack_->agent().kill_hard();
  save(kAllButTheNode);
  ST_ASSERT_VALUE(auto agent, Process::start(spec()));
  expect_ready(*agent);
  EXPECT_TRUE(eventually(kPatience, [&] { return !kernel().pod(cookie_).has_value(); }))
      << agent->output();
}

}  // namespace
}  // namespace sidetrack::lab
