// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "agent/main/event_watch.h"

namespace sidetrack::agent {
namespace {

using namespace std::chrono_literals;

class Events : public testing::Test {
 protected:
  Events() {
    objects_.pods["shop/web"].metadata = {.name = "web", .namespace_name = "shop", .uid = "u1"};
    pod_.intent.namespace_name = "shop";
    pod_.intent.name = "web";
  }
  std::vector<kube::ClusterEvent> look(EventWatch::Clock::duration at) {
    return watch_.look({pod_}, objects_, problems_, EventWatch::Clock::time_point{1h} + at);
  }

  EventWatch watch_{"worker-1"};
  kube::ObjectSet objects_;
  std::vector<kube::Problem> problems_;
  reconcile::PodStatus pod_;
};

TEST_F(Events, tell_of_a_pod_that_is_not_captured_after_a_while) {
  pod_.phase = reconcile::PodPhase::kDrift;
  pod_.reason = "no_netns";
  pod_.detail = "none of its processes runs on this node yet";
  EXPECT_TRUE(look(0s).empty());
  EXPECT_TRUE(look(9s).empty());
  const auto events = look(10s);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].reason, "SidetrackNotCaptured");
  EXPECT_EQ(events[0].kind, "Pod");
  EXPECT_EQ(events[0].namespace_name, "shop");
  EXPECT_EQ(events[0].uid, "u1");
  EXPECT_NE(events[0].message.find("none of its processes"), std::string::npos);
}

TEST_F(Events, do_not_tell_of_a_pod_that_was_captured_meanwhile) {
  pod_.phase = reconcile::PodPhase::kPending;
  (void)look(0s);
  pod_.phase = reconcile::PodPhase::kEnrolled;
  (void)look(5s);
  pod_.phase = reconcile::PodPhase::kPending;
  EXPECT_TRUE(look(12s).empty());
}

TEST_F(Events, tell_of_a_pod_whose_runtime_cannot_be_captured) {
  pod_.phase = reconcile::PodPhase::kSkipped;
  pod_.reason = "sandboxed_runtime";
  (void)look(0s);
  EXPECT_EQ(look(10s).size(), 1U);
}

TEST_F(Events, do_not_tell_of_a_pod_of_which_nothing_runs_yet) {
  pod_.phase = reconcile::PodPhase::kDrift;
  pod_.reason = "no_netns";
  objects_.pods["shop/web"].phase = "Pending";
  (void)look(0s);
  EXPECT_TRUE(look(60s).empty());
}

TEST_F(Events, do_not_tell_of_pods_that_are_not_wanted) {
  pod_.phase = reconcile::PodPhase::kSkipped;
  pod_.reason = "mode_disabled";
  (void)look(0s);
  EXPECT_TRUE(look(60s).empty());
}

TEST_F(Events, name_the_object_the_key_and_the_text_of_bad_input) {
  pod_.phase = reconcile::PodPhase::kEnrolled;
  problems_ = {{.object = "Namespace/shop",
                .key = "sidetrack.io/exclude-outbound-ports",
                .value = "80-",
                .reason = "a range needs two ports"},
               {.object = "Pod/shop/web",
                .key = "sidetrack.io/mode",
                .value = "yes",
                .reason = "not a mode"},
               {.object = "Pod/shop/web", .key = "k", .value = "v", .reason = "r", .warning = true},
               {.object = "file /objects/a.yaml", .key = "line 3", .value = "x", .reason = "y"}};
  const auto events = look(0s);
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].kind, "Namespace");
  EXPECT_EQ(events[0].name, "shop");
  EXPECT_EQ(events[0].reason, "SidetrackPolicyInvalid");
  EXPECT_NE(events[0].message.find("exclude-outbound-ports: '80-'"), std::string::npos);
  EXPECT_EQ(events[1].kind, "Pod");
  EXPECT_EQ(events[1].uid, "u1");
}

TEST_F(Events, of_the_node_name_it) {
  const auto event = watch_.degraded("somebody rewrites it");
  EXPECT_EQ(event.kind, "Node");
  EXPECT_EQ(event.name, "worker-1");
  EXPECT_EQ(event.reason, "SidetrackDegraded");
}

}  // namespace
}  // namespace sidetrack::agent
