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

TEST_F(Events, do_not_tell_of_a_pod_whose_runtime_is_not_known_yet) {
  pod_.phase = reconcile::PodPhase::kPending;
  pod_.reason = reconcile::kRuntimeNotSeen;
  (void)look(0s);
  EXPECT_TRUE(look(60s).empty());
}

TEST_F(Events, tell_of_a_pod_whose_runtime_cannot_be_known) {
  pod_.phase = reconcile::PodPhase::kPending;
  pod_.reason = reconcile::kRuntimeHidden;
  pod_.detail = "look at /proc/7/ns/net: Permission denied";
  (void)look(0s);
  const auto events = look(10s);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].reason, "SidetrackNotCaptured");
  EXPECT_EQ(events[0].message,
            "its connections may not be redirected: look at /proc/7/ns/net: Permission denied "
            "(runtime_hidden)");
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

class NodeEvents : public Events {
 protected:
  std::optional<kube::ClusterEvent> look_at_node(EventWatch::Clock::duration at) {
    return watch_.look_at_node(node_problems_, EventWatch::Clock::time_point{1h} + at);
  }
  std::vector<admin::ProblemView> node_problems_ = {{.severity = "error",
                                                     .object = "engine",
                                                     .key = "engine_down",
                                                     .reason = "no engine is registered",
                                                     .action = "start one"}};
};

TEST_F(NodeEvents, tell_of_what_is_wrong_for_a_minute) {
  EXPECT_FALSE(look_at_node(0s));
  EXPECT_FALSE(look_at_node(59s));
  const auto event = look_at_node(60s);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->kind, "Node");
  EXPECT_EQ(event->name, "worker-1");
  EXPECT_EQ(event->reason, "SidetrackDegraded");
  EXPECT_EQ(event->message, "engine: no engine is registered (start one)");
}

TEST_F(NodeEvents, begin_anew_when_it_was_well_in_between) {
  (void)look_at_node(0s);
  const auto problems = std::exchange(node_problems_, {});
  EXPECT_FALSE(look_at_node(30s));
  node_problems_ = problems;
  EXPECT_FALSE(look_at_node(70s));
}

TEST_F(NodeEvents, say_all_in_one_since_the_sender_lets_one_of_a_reason_pass) {
  node_problems_.push_back({.severity = "error",
                            .object = "cni",
                            .key = "not_installed",
                            .reason = "10-x.conflist: it has no plugins",
                            .action = "see docs/cni.md"});
  node_problems_.push_back(
      {.severity = "error", .object = "node", .reason = "st_connect4: busy", .action = "doctor"});
  (void)look_at_node(0s);
  const std::string message = look_at_node(60s)->message;
  for (const char* part : {"engine: ", "; cni: 10-x.conflist", "; node: st_connect4: busy"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST_F(NodeEvents, are_none_of_warnings_and_of_objects) {
  node_problems_ = {{.severity = "warning", .object = "node", .key = "repaired"},
                    {.severity = "warning", .object = "api", .key = "pods"},
                    {.severity = "error", .object = "Pod/shop/web", .key = "no_netns"}};
  (void)look_at_node(0s);
  EXPECT_FALSE(look_at_node(100s));
}

TEST_F(NodeEvents, know_a_problem_again_by_its_key) {
  (void)look_at_node(0s);
  node_problems_[0].reason = "no heartbeat for 60 s";
  EXPECT_TRUE(look_at_node(60s));
}

TEST_F(Events, of_the_node_name_it) {
  const auto event = watch_.degraded("somebody rewrites it");
  EXPECT_EQ(event.kind, "Node");
  EXPECT_EQ(event.name, "worker-1");
  EXPECT_EQ(event.reason, "SidetrackDegraded");
}

}  // namespace
}  // namespace sidetrack::agent
