// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/admin/json.h"
#include "agent/admin/request.h"
#include "tests/unit/admin_fake_views.h"

namespace sidetrack::admin {
namespace {

using nlohmann::json;
using test::FakeViews;

TEST(AdminJson, status_has_the_documented_fields) {
  const auto status = to_json(FakeViews().status());
  EXPECT_EQ(json::parse(R"({
    "agent": {"version": "0.1.0", "state": "ready", "pid": 42, "started": 1700000000.5, "node": "n1", "source": "files",
              "pin_dir": "", "cgroup": ""},
    "engine": {"kind": "embedded", "state": "up", "detail": "", "pid": 43, "last_beat_age_s": 0.25, "connections": 3},
    "engines": [{"kind": "embedded", "state": "up", "detail": "", "pid": 43, "last_beat_age_s": 0.25, "connections": 3}],
    "kernel": "6.1.0",
    "programs": [{"name": "st_connect4", "hook": "cgroup/connect4", "attached": true, "cgroup_id": 1, "program_id": 7,
                  "detail": ""}],
    "pods": {"wanted": 2, "enrolled": 2, "drift": 0, "skipped": 0, "drift_reasons": {}},
    "fast_path": "off", "fast_path_reason": "node_off", "fast_path_connections": 2,
    "fast_path_refused": {"fp_blocking": 7}, "bypass": false,
    "maps": [{"map": "st_pods", "entries": 2, "capacity": 4096}],
    "problems": [], "kubernetes": null, "repairs": 0})"),
            status);
}

TEST(AdminJson, status_shows_the_engine_that_is_up) {
  StatusView view;
  view.engines = {{.kind = "embedded", .state = "draining", .detail = ""},
                  {.kind = "embedded", .state = "up", .detail = "new"}};
  EXPECT_EQ(to_json(view)["engine"]["detail"], "new");
}

TEST(AdminJson, status_without_engine_says_none) {
  EXPECT_EQ(to_json(StatusView{})["engine"]["state"], "none");
}

TEST(AdminJson, status_shows_what_the_api_and_the_plugin_are_like) {
  StatusView view;
  view.kubernetes = KubernetesView{
      .resources = {{.resource = "pods", .listed = true, .objects = 3, .last_event = 5.5}},
      .events_sent = 2,
      .pods_captured_late = 4,
      .cni_file = "/etc/cni/net.d/10-x.conflist",
      .cni_network = "x",
      .conflist_rewrites = {{"start", 1}}};
  EXPECT_EQ(to_json(view)["kubernetes"], json::parse(R"({
    "resources": [{"resource": "pods", "listed": true, "objects": 3, "relists": 0, "failures": 0, "last_event": 5.5,
                   "cached": 0.0, "problem": ""}],
    "events": {"sent": 2, "suppressed": 0, "failed": 0},
    "cni": {"file": "/etc/cni/net.d/10-x.conflist", "network": "x", "problem": "", "conflist_rewrites": {"start": 1}},
    "pods_captured_late": 4})"));
}

TEST(AdminJson, problem_carries_object_key_value_and_action) {
  StatusView view;
  view.problems = {{.severity = "error",
                    .object = "Pod/a/b",
                    .key = "k",
                    .value = "v",
                    .reason = "r",
                    .action = "do"}};
  EXPECT_EQ(
      to_json(view)["problems"][0],
      json::parse(
          R"({"severity":"error","object":"Pod/a/b","key":"k","value":"v","reason":"r","action":"do"})"));
}

TEST(AdminJson, pod_uses_the_api_names) {
  const auto pod = to_json(FakeViews().pods("shop"))["pods"][0];
  EXPECT_EQ(pod["namespace"], "shop");
  EXPECT_EQ(pod["pod"], "web-0");
  EXPECT_EQ(pod["state"], "enrolled");
  EXPECT_EQ(pod["engine_ports"], json::parse("[15900, 15901]"));
  EXPECT_EQ(pod["netns_cookie"], 99);
}

TEST(AdminJson, policy_entries_carry_their_origin) {
  const auto policy = to_json(*FakeViews().policy("shop", "web-0"));
  EXPECT_EQ(policy["policy_id"], 5);
  EXPECT_EQ(
      policy["entries"][0]["origin"],
      json::parse(R"({"object":"Namespace/shop","key":"sidetrack.io/mode","value":"redirect"})"));
}

TEST(AdminJson, explain_without_rule_has_null) {
  auto view = *FakeViews().explain("shop", "web-0", "10.0.0.1:8500");
  EXPECT_EQ(to_json(view)["rule"]["value"], "8500");
  view.rule.reset();
  EXPECT_TRUE(to_json(view)["rule"].is_null());
}

TEST(AdminJson, flow_page_and_counters_are_wrapped) {
  FakeViews views;
  const auto page = to_json(views.flows({}));
  EXPECT_EQ(page["next_sequence"], 1);
  EXPECT_EQ(page["flows"][0]["close"], "fin");
  EXPECT_EQ(page["flows"][0]["fast_path_reason"], "");
  EXPECT_EQ(page["flows"][0]["namespace"], "shop");
  const auto counters = to_json(views.counters());
  EXPECT_EQ(counters["counters"][0]["connections"]["excluded_port"], 2);
  EXPECT_EQ(counters["counters"][0]["flows_dropped"], 4);
}

TEST(AdminJson, bytes_that_are_no_text_are_replaced) {
  PodView view;
  view.pod = "a\xff";
  EXPECT_TRUE(json::accept(dump(to_json(view))));
}

TEST(AdminRequest, target_is_split_and_decoded) {
  const auto request =
      parse_target("/v1/explain?namespace=shop&destination=%5Bfd00%3A%3A1%5D:80&x=a+b");
  ASSERT_TRUE(request);
  EXPECT_EQ(request->path, "/v1/explain");
  EXPECT_EQ(request->parameter("destination"), "[fd00::1]:80");
  EXPECT_EQ(request->parameter("x"), "a b");
  EXPECT_EQ(request->parameter("missing"), "");
}

TEST(AdminRequest, malformed_targets_are_refused) {
  EXPECT_FALSE(parse_target(""));
  EXPECT_FALSE(parse_target("v1/status"));
  EXPECT_FALSE(parse_target("/a%2"));
  EXPECT_FALSE(parse_target("/a%zz"));
  EXPECT_FALSE(parse_target("/a%00"));
  EXPECT_FALSE(parse_target("/a?x=%-1"));
}

TEST(AdminRequest, encoding_is_undone_by_decoding) {
  const std::string text = "[fd00::1]:80 &=+%/";
  EXPECT_EQ(percent_decode(percent_encode(text), true), text);
}

}  // namespace
}  // namespace sidetrack::admin
