// SPDX-License-Identifier: Apache-2.0
// What audit() finds in the kernel that should not be there, is not there, or is not as it was
// written.
#include "tests/unit/reconcile_fakes.h"

namespace sidetrack::reconcile::testing {
namespace {

class Audit : public ReconcilerTest {};

TEST_F(Audit, finds_nothing_to_repair_when_all_is_well) {
  enrol_web();
  EXPECT_EQ(audit(), 0U);
  EXPECT_EQ(kernel.collected, 1);
}

TEST_F(Audit, writes_a_deleted_row_again_and_counts_it) {
  enrol_web();
  const st_pod before = kernel.rows.at(kWeb);
  kernel.rows.clear();
  EXPECT_EQ(audit(), 1U);
  EXPECT_EQ(kernel.rows.at(kWeb).mode, before.mode);
  EXPECT_EQ(audit(), 0U);
}

TEST_F(Audit, writes_a_changed_row_again_and_counts_it) {
  enrol_web();
  const st_pod before = kernel.rows.at(kWeb);
  kernel.rows.at(kWeb).mode = ST_MODE_DISABLED;
  EXPECT_EQ(audit(), 1U);
  EXPECT_TRUE(same_row(kernel.rows.at(kWeb), before));
  EXPECT_EQ(audit(), 0U);
}

TEST_F(Audit, a_row_that_is_gone_shows_at_once) {
  enrol_web();
  kernel.rows.clear();
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "row_missing");
  EXPECT_FALSE(status("web").row.has_value());
  audit();
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
}

TEST_F(Audit, a_row_that_was_changed_shows_at_once) {
  enrol_web();
  kernel.rows.at(kWeb).mode = ST_MODE_PASSTHROUGH;
  kernel.rows.at(kWeb).policy_id = 77;
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "row_differs");
  EXPECT_EQ(status("web").detail, "the kernel has another mode, policy for it");
  EXPECT_EQ(status("web").row->mode, ST_MODE_PASSTHROUGH);
  audit();
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
}

TEST_F(Audit, the_row_of_a_pod_that_is_skipped_counts_too) {
  apply_web(ST_MODE_DISABLED);
  EXPECT_EQ(status("web").phase, PodPhase::kSkipped);
  kernel.rows.at(kWeb).mode = ST_MODE_REDIRECT;
  EXPECT_EQ(status("web").phase, PodPhase::kSkipped) << "it is not one that should be enrolled";
  EXPECT_EQ(status("web").reason, "row_differs");
}

TEST_F(Audit, a_listener_that_the_kernel_saw_close_is_no_damage) {
  enrol_web();
  kernel.rows.at(kWeb).port_v4_be[1] = 0;
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
}

TEST_F(Audit, a_row_that_cannot_be_read_is_not_called_enrolled) {
  enrol_web();
  kernel.list_error = true;
  EXPECT_EQ(status("web").reason, "map_read_failed");
}

TEST_F(Audit, a_policy_that_was_changed_shows_at_once) {
  policy::PodIntent pod = intent("web", "/netns/web");
  auto compiled = std::make_shared<policy::CompiledPolicy>();
  compiled->exclude_ports = ST_PORT_SET_ALL;
  pod.compiled = compiled;
  apply({pod});
  listen(kWeb, listeners(15900, 51));
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
  kernel.damaged_policies.insert(kernel.rows.at(kWeb).policy_id);
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "policy_differs");
}

TEST_F(Audit, does_not_count_a_row_that_never_fitted) {
  kernel.rows_full = true;
  apply_web(ST_MODE_PASSTHROUGH);
  EXPECT_EQ(audit(), 0U);
  EXPECT_EQ(status("web").reason, "map_full");
}

TEST_F(Audit, removes_rows_that_an_earlier_agent_left) {
  kernel.rows[8888] = st_pod{};
  apply_web();
  EXPECT_TRUE(kernel.rows.contains(8888)) << "apply() alone removes nothing: the rest may follow";
  EXPECT_EQ(audit(), 1U);
  EXPECT_FALSE(kernel.rows.contains(8888));
}

TEST_F(Audit, keeps_what_an_earlier_agent_left_while_the_namespace_of_a_pod_is_not_known) {
  kernel.rows[8888] = st_pod{};
  apply({intent("web", "")});
  EXPECT_EQ(audit(), 0U);
  EXPECT_TRUE(kernel.rows.contains(8888));
  apply_web();
  EXPECT_EQ(audit(), 1U);
  EXPECT_FALSE(kernel.rows.contains(8888));
}

TEST_F(Audit, does_not_keep_it_for_ever) {
  kernel.rows[8888] = st_pod{};
  apply({intent("web", "")});
  now += 61s;
  EXPECT_EQ(audit(), 1U);
}

TEST_F(Audit, leaves_the_nodes_own_row) {
  kernel.rows[kNodeCookie] = st_pod{};
  EXPECT_EQ(audit(), 0U);
  EXPECT_TRUE(kernel.rows.contains(kNodeCookie));
}

TEST_F(Audit, does_nothing_when_the_rows_cannot_be_listed) {
  enrol_web();
  kernel.list_error = true;
  calls.clear();
  EXPECT_EQ(audit(), 0U);
  EXPECT_TRUE(calls.empty());
  EXPECT_EQ(kernel.collected, 0);
}

TEST_F(Audit, asks_for_lost_listeners_again_without_counting_them) {
  enrol_web();
  kernel.rows.at(kWeb).port_v4_be[1] = 0;
  EXPECT_EQ(audit(), 0U);
  EXPECT_TRUE(called("reopen 7001"));
}

TEST_F(Audit, keeps_the_row_of_a_restarted_agent_until_the_engine_answers) {
  enrol_web();
  const st_pod before = kernel.rows.at(kWeb);
  FakeEngines none(calls);
  Reconciler restarted({.node_netns_cookie = kNodeCookie}, kernel, none, netns);
  restarted.apply({intent("web", "/netns/web")}, now);
  EXPECT_EQ(restarted.audit(now), 0U);
  EXPECT_TRUE(same_row(kernel.rows.at(kWeb), before));
}

}  // namespace
}  // namespace sidetrack::reconcile::testing
