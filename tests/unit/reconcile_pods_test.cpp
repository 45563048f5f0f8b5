// SPDX-License-Identifier: Apache-2.0
// Enrolling, changing and un-enrolling pods whose namespace stays.
#include <arpa/inet.h>

#include "tests/unit/reconcile_fakes.h"

namespace sidetrack::reconcile::testing {
namespace {

using ::testing::ElementsAre;

policy::PodIntent with_policy(policy::PodIntent pod,
                              const std::shared_ptr<const policy::CompiledPolicy>& compiled) {
  pod.compiled = compiled;
  return pod;
}

std::shared_ptr<const policy::CompiledPolicy> excluding_all() {
  auto compiled = std::make_shared<policy::CompiledPolicy>();
  compiled->exclude_ports = ST_PORT_SET_ALL;
  return compiled;
}

class Pods : public ReconcilerTest {};

TEST_F(Pods, are_pending_until_the_engine_listens) {
  apply_web();
  EXPECT_EQ(status("web").phase, PodPhase::kPending);
  EXPECT_EQ(status("web").reason, "waiting_for_listeners");
  EXPECT_EQ(engines.pods.at(kWeb).name, "web");
}

TEST_F(Pods, are_drift_while_no_engine_is_connected) {
  engines.up = false;
  apply_web();
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "engine_down");
}

TEST_F(Pods, are_enrolled_when_the_row_is_read_back) {
  enrol_web();
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
  EXPECT_EQ(status("web").netns_cookie, kWeb);
  EXPECT_EQ(status("web").row->port_v4_be[0], htons(15900));
  EXPECT_EQ(kernel.rows.at(kWeb).engine_slot, 1);
}

// Redirected by then, if its sockets are the node's.
TEST_F(Pods, of_a_runtime_that_is_not_known_yet_are_pending_with_their_row) {
  policy::PodIntent pod = intent("web", "/netns/web");
  pod.runtime_unseen = true;
  enrol_web();
  apply({pod});
  EXPECT_EQ(status("web").phase, PodPhase::kPending);
  EXPECT_EQ(status("web").reason, kRuntimeNotSeen);
  EXPECT_EQ(kernel.rows.at(kWeb).mode, ST_MODE_REDIRECT);
  pod.runtime_problem = "look at /proc/7/ns/net: Permission denied";
  apply({pod});
  EXPECT_EQ(status("web").phase, PodPhase::kPending);
  EXPECT_EQ(status("web").reason, kRuntimeHidden);
  EXPECT_NE(status("web").detail.find("/proc/7/ns/net: Permission denied (CAP_SYS_PTRACE"),
            std::string::npos);
  EXPECT_EQ(kernel.rows.at(kWeb).mode, ST_MODE_REDIRECT);
  pod.runtime_unseen = false;
  apply({pod});
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
}

TEST_F(Pods, say_when_their_row_came_to_the_kernel) {
  apply_web();
  const auto captured = status("web").captured_at;
  ASSERT_TRUE(captured.has_value());
  EXPECT_FALSE(status("web").wanted_since.has_value());
  kernel.rows.clear();  // somebody's doing: the audit writes it again
  now += std::chrono::seconds(5);
  reconciler.audit(now);
  EXPECT_TRUE(kernel.rows.contains(kWeb));
  EXPECT_EQ(status("web").captured_at, captured);
}

TEST_F(Pods, whose_row_is_an_earlier_agents_were_captured_by_that) {
  kernel.rows[kWeb].mode = ST_MODE_REDIRECT;
  apply_web();
  EXPECT_FALSE(status("web").captured_at.has_value());
}

TEST_F(Pods, say_since_when_they_are_wanted_if_that_changed) {
  policy::PodIntent pod = intent("web", "/netns/web");
  pod.state = policy::PodState::kSkipped;
  apply({pod});
  EXPECT_FALSE(status("web").captured_at.has_value());
  now += std::chrono::seconds(5);
  apply_web();
  EXPECT_EQ(status("web").wanted_since, now);
}

TEST_F(Pods, are_not_enrolled_when_the_written_row_is_not_there) {
  kernel.lose_writes = true;
  apply_web(ST_MODE_PASSTHROUGH);
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "map_write_failed");
}

TEST_F(Pods, have_their_policy_written_before_their_row) {
  apply({with_policy(intent("web", "/netns/web"), excluding_all())});
  EXPECT_THAT(calls, ElementsAre("acquire", "upsert 7001"));
  EXPECT_EQ(kernel.rows.at(kWeb).policy_id, 1U);
}

TEST_F(Pods, that_share_a_policy_have_it_looked_up_once_per_pass) {
  netns.add("/netns/api", 7002);
  const auto shared = excluding_all();
  apply({with_policy(intent("web", "/netns/web"), shared),
         with_policy(intent("api", "/netns/api"), shared)});
  EXPECT_EQ(kernel.acquired, 1);
  EXPECT_EQ(kernel.rows.at(kWeb).policy_id, kernel.rows.at(7002).policy_id);
  apply({with_policy(intent("web", "/netns/web", ST_MODE_PASSTHROUGH), shared),
         with_policy(intent("api", "/netns/api", ST_MODE_PASSTHROUGH), shared)});
  EXPECT_EQ(kernel.acquired, 2) << "the next pass asks again: the policy may have been collected";
}

TEST_F(Pods, without_rules_have_policy_0) {
  apply_web();
  EXPECT_EQ(kernel.acquired, 0);
  EXPECT_EQ(kernel.rows.at(kWeb).policy_id, 0U);
}

TEST_F(Pods, without_a_free_counter_slot_count_under_slot_0) {
  kernel.slots_full = true;
  enrol_web();
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
  EXPECT_EQ(kernel.rows.at(kWeb).namespace_slot, 0U);
}

TEST_F(Pods, keep_their_row_when_a_new_policy_does_not_fit) {
  enrol_web();
  kernel.policies_full = true;
  const st_pod before = kernel.rows.at(kWeb);
  apply({with_policy(intent("web", "/netns/web"), excluding_all())});
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "map_full");
  EXPECT_TRUE(same_row(kernel.rows.at(kWeb), before));
}

TEST_F(Pods, are_tried_again_with_backoff_when_the_map_is_full) {
  kernel.rows_full = true;
  apply_web(ST_MODE_PASSTHROUGH);
  EXPECT_EQ(status("web").reason, "map_full");
  EXPECT_EQ(std::count(calls.begin(), calls.end(), "upsert 7001"), 1);
  tick(249ms);
  EXPECT_EQ(std::count(calls.begin(), calls.end(), "upsert 7001"), 1);
  tick(1ms);
  EXPECT_EQ(std::count(calls.begin(), calls.end(), "upsert 7001"), 2);
  tick(250ms);
  EXPECT_EQ(std::count(calls.begin(), calls.end(), "upsert 7001"), 2)
      << "the second wait is twice the first";
  kernel.rows_full = false;
  tick(250ms);
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
  EXPECT_EQ(status("web").reason, "");
}

TEST_F(Pods, are_written_again_only_when_something_changed) {
  enrol_web();
  const int writes = kernel.writes;
  enrol_web();
  tick();
  EXPECT_EQ(kernel.writes, writes);
}

TEST_F(Pods, whose_label_is_taken_off_are_disabled_at_once_and_leave_the_engine_later) {
  enrol_web();
  calls.clear();
  apply_web(ST_MODE_DISABLED);
  EXPECT_EQ(kernel.rows.at(kWeb).mode, ST_MODE_DISABLED);
  tick(1999ms);
  EXPECT_TRUE(engines.pods.contains(kWeb))
      << "a connect() that read the old row may be on its way to the listener";
  tick(1ms);
  EXPECT_FALSE(engines.pods.contains(kWeb));
  EXPECT_THAT(calls, ElementsAre("upsert 7001", "leave 7001"));
  EXPECT_EQ(status("web").phase, PodPhase::kSkipped);
}

TEST_F(Pods, that_flip_back_in_time_never_leave_the_engine) {
  enrol_web();
  apply_web(ST_MODE_PASSTHROUGH);
  tick(1000ms);
  apply_web();
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
  tick(5000ms);
  EXPECT_TRUE(engines.pods.contains(kWeb));
  EXPECT_FALSE(called("leave 7001"));
}

TEST_F(Pods, that_were_deleted_are_not_cut_while_their_namespace_lives) {
  enrol_web();
  apply({});
  EXPECT_EQ(kernel.rows.at(kWeb).mode, ST_MODE_DISABLED);
  EXPECT_TRUE(reconciler.status().empty());
  tick(3000ms);
  EXPECT_TRUE(called("leave 7001"));
  EXPECT_FALSE(called("cut 7001"));
  EXPECT_EQ(reconciler.owner(kWeb)->name, "web") << "late flow records still have a name";
}

TEST_F(Pods, that_are_host_network_have_no_row) {
  policy::PodIntent pod = intent("web", "/netns/web", ST_MODE_DISABLED);
  pod.reason = "host_network";
  apply({pod});
  EXPECT_TRUE(kernel.rows.empty());
  EXPECT_EQ(status("web").phase, PodPhase::kSkipped);
}

TEST_F(Pods, that_are_skipped_have_a_disabled_row) {
  policy::PodIntent pod = intent("web", "/netns/web", ST_MODE_DISABLED);
  pod.reason = "has_sidecar";
  apply({pod});
  EXPECT_EQ(kernel.rows.at(kWeb).mode, ST_MODE_DISABLED);
  EXPECT_TRUE(engines.pods.empty());
  EXPECT_EQ(status("web").reason, "has_sidecar");
}

TEST_F(Pods, without_a_namespace_are_drift) {
  apply({intent("web", "")});
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "no_netns");
  EXPECT_NE(status("web").detail.find("annotation sidetrack.io/netns"), std::string::npos);
}

TEST_F(Pods, keep_the_kernels_listeners_when_the_engines_session_is_lost) {
  enrol_web();
  engines.listening.clear();
  engines.up = false;
  reconciler.on_engines_changed(now);
  EXPECT_EQ(kernel.rows.at(kWeb).port_v4_be[0], htons(15900));
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled)
      << "the kernel clears ports of an engine that is dead";
}

TEST_F(Pods, move_to_the_listeners_of_a_new_engine) {
  enrol_web();
  listen(kWeb, listeners(15950, 91, 2));
  EXPECT_EQ(kernel.rows.at(kWeb).engine_slot, 2);
  EXPECT_EQ(kernel.rows.at(kWeb).port_v4_be[0], htons(15950));
}

TEST_F(Pods, show_why_the_engine_could_not_listen) {
  apply_web();
  reconciler.on_listen_failed(kWeb, "all ports of 15900-15999 are taken");
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "listen_failed");
  EXPECT_EQ(status("web").detail, "all ports of 15900-15999 are taken");
  listen(kWeb, listeners(15900, 51));
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
}

TEST_F(Pods, whose_listener_was_lost_have_it_opened_again) {
  enrol_web();
  kernel.rows.at(kWeb).port_v4_be[0] = 0;  // as sockops does
  reconciler.on_listener_lost(kWeb, now);
  EXPECT_TRUE(called("reopen 7001"));
  EXPECT_EQ(kernel.rows.at(kWeb).port_v4_be[0], 0);
  listen(kWeb, listeners(15910, 71));
  EXPECT_EQ(kernel.rows.at(kWeb).port_v4_be[0], htons(15910));
}

TEST_F(Pods, that_are_leaving_have_no_listener_opened_again) {
  enrol_web();
  apply_web(ST_MODE_DISABLED);
  reconciler.on_listener_lost(kWeb, now);
  EXPECT_FALSE(called("reopen 7001"));
}

TEST_F(Pods, ignore_events_of_namespaces_that_are_not_theirs) {
  enrol_web();
  calls.clear();
  reconciler.on_listening(99, now);
  reconciler.on_listen_failed(99, "no");
  reconciler.on_listener_lost(99, now);
  EXPECT_TRUE(calls.empty());
}

class ExternalEngine : public ReconcilerTest {
 protected:
  ExternalEngine() : ReconcilerTest(EngineKind::kExternal) {}
};

TEST_F(ExternalEngine, is_told_nothing) {
  apply_web();
  EXPECT_TRUE(engines.pods.empty());
  EXPECT_EQ(kernel.rows.at(kWeb).external, 1);
}

}  // namespace
}  // namespace sidetrack::reconcile::testing
