// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>

#include "agent/metrics/metrics.h"
#include "tests/unit/admin_fake_views.h"

namespace sidetrack::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Metrics, every_line_is_exposition_text) {
  test::FakeViews views;
  Metrics metrics(views);
  metrics.observe_policy_apply(0.02);
  const std::regex comment(R"(# (HELP|TYPE) [a-z_]+ .+)");
  const std::regex sample(
      R"re([a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [-+0-9.einfEINF]+)re");
  std::istringstream lines(metrics.text());
  std::set<std::string> seen;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(std::regex_match(line, comment) || std::regex_match(line, sample)) << line;
    EXPECT_TRUE(seen.insert(line).second) << "twice: " << line;
  }
  EXPECT_GT(seen.size(), 30U);
}

TEST(Metrics, connections_carry_verdict_and_reason) {
  test::FakeViews views;
  const auto text = Metrics(views).text();
  EXPECT_THAT(text, HasSubstr("# TYPE sidetrack_connections_total counter\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_connections_total{namespace=\"shop\",verdict="
                              "\"redirected\",reason=\"redirected\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("verdict=\"direct\",reason=\"excluded_port\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("verdict=\"refused\",reason=\"engine_down_closed\"} 1\n"));
}

TEST(Metrics, node_state_is_shown) {
  test::FakeViews views;
  views.status_view.bypass = true;
  views.status_view.drift_reasons = {{"no_listener", 2}};
  views.status_view.fast_path_namespaces = {{"shop", 3}};
  views.status_view.fast_path_refused = {{"fp_blocking", 7}};
  views.status_view.problems.assign(3, {.object = "Pod/shop/web", .from_object = true});
  views.status_view.pods_wanted = 5;
  views.status_view.pods_drift = 3;
  views.status_view.pods_skipped = 6;
  views.status_view.repairs = 8;
  const auto text = Metrics(views).text();
  EXPECT_THAT(text, HasSubstr("sidetrack_flow_bytes_total{namespace=\"shop\",path=\"engine\","
                              "direction=\"in\"} 2000\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_pods{state=\"wanted\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_pods{state=\"enrolled\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_pods{state=\"drift\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_pods{state=\"skipped\"} 6\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_repairs_total 8\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_pod_drift{reason=\"no_listener\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_engine_up 1\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_map_entries{map=\"st_pods\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_map_capacity{map=\"st_pods\"} 4096\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_program_attached{hook=\"cgroup/connect4\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_policy_rejected 3\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_flow_records_dropped_total 4\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_bypass 1\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_build_info{version=\"0.1.0\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_fastpath_connections{namespace=\"shop\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_fastpath_refused_total{reason=\"fp_blocking\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("process_start_time_seconds 17000000"));
}

// Kept by namespace, told as one number each.
TEST(Metrics, losses_of_all_namespaces_are_added_up) {
  test::FakeViews views;
  auto& rows = views.counter_views;
  rows.push_back(rows.front());
  rows[0].namespace_name = "";
  rows[0].flows_dropped = 1;
  rows[0].records_full = 2;
  rows[0].storage_full = 3;
  rows[0].record_fallback = 4;
  rows[1].flows_dropped = 10;
  rows[1].records_full = 20;
  rows[1].storage_full = 30;
  rows[1].record_fallback = 40;
  const auto text = Metrics(views).text();
  EXPECT_THAT(text, HasSubstr("sidetrack_flow_records_dropped_total 11\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_records_full_total 22\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_storage_full_total 33\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_record_fallback_total 44\n"));
}

TEST(Metrics, trouble_of_another_kind_is_no_rejected_policy) {
  test::FakeViews views;
  views.status_view.problems = {{.object = "engine", .key = "engine_down"},
                                {.object = "Pod/shop/db", .key = "row_missing"},
                                {.object = "Pod/shop/web", .key = "/spec", .from_object = true}};
  EXPECT_THAT(Metrics(views).text(), HasSubstr("sidetrack_policy_rejected 1\n"));
}

TEST(Metrics, problems_are_counted_as_status_shows_them) {
  test::FakeViews views;
  EXPECT_THAT(Metrics(views).text(), HasSubstr("sidetrack_problems{severity=\"warning\"} 0\n"));
  views.status_view.problems = {{.severity = "error", .object = "engine"},
                                {.severity = "warning", .object = "Pod/shop/web"},
                                {.severity = "warning", .object = "api"}};
  const std::string text = Metrics(views).text();
  EXPECT_THAT(text, HasSubstr("sidetrack_problems{severity=\"error\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_problems{severity=\"warning\"} 2\n"));
}

TEST(Metrics, engine_down_is_zero_and_no_engine_is_absent) {
  test::FakeViews views;
  views.status_view.engines[0].state = "down";
  EXPECT_THAT(Metrics(views).text(), HasSubstr("sidetrack_engine_up 0\n"));
  views.status_view.engines[0].kind = "none";
  EXPECT_THAT(Metrics(views).text(), Not(HasSubstr("sidetrack_engine_up")));
}

TEST(Metrics, the_api_and_the_plugin_are_counted_where_there_are_any) {
  test::FakeViews views;
  Metrics metrics(views);
  metrics.observe_cni("add", 0, 0.004);
  metrics.observe_cni("add", 11, 1.7);
  EXPECT_EQ(metrics.text().find("sidetrack_watch"), std::string::npos);
  views.status_view.kubernetes =
      admin::KubernetesView{.resources = {{.resource = "pods", .relists = 4, .last_event = 7}},
                            .events_failed = 3,
                            .pods_captured_late = 5,
                            .conflist_rewrites = {{"changed", 2}}};
  const std::string text = metrics.text();
  for (const char* line :
       {"sidetrack_watch_last_event_timestamp_seconds{resource=\"pods\"} 7",
        "sidetrack_watch_relists_total{resource=\"pods\"} 4",
        "sidetrack_events_total{outcome=\"failed\"} 3", "sidetrack_pods_captured_late_total 5",
        "sidetrack_conflist_rewrites_total{cause=\"changed\"} 2",
        "sidetrack_cni_requests_total{command=\"add\",code=\"11\"} 1",
        "sidetrack_cni_request_duration_seconds_count 2"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line;
  }
}

TEST(Metrics, policy_apply_is_a_histogram) {
  test::FakeViews views;
  Metrics metrics(views);
  metrics.observe_policy_apply(0.02);
  metrics.observe_policy_apply(3);
  const auto text = metrics.text();
  EXPECT_THAT(text, HasSubstr("# TYPE sidetrack_policy_apply_seconds histogram\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_policy_apply_seconds_count 2\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_policy_apply_seconds_bucket{le=\"0.025\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("sidetrack_policy_apply_seconds_bucket{le=\"+Inf\"} 2\n"));
}

}  // namespace
}  // namespace sidetrack::metrics
