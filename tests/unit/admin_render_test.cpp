// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include <nlohmann/json.hpp>

#include "agent/admin/json.h"
#include "agent/ctl/render.h"
#include "tests/unit/admin_fake_views.h"

namespace sidetrack::ctl {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;
const Painter kPlain(Painter::Mode::kPlain);

TEST(CtlRender, status_fits_one_screen_and_ends_with_problems) {
  const auto text =
      render_status(admin::to_json(test::FakeViews().status()), kPlain, 1'700'000'125.5);
  EXPECT_THAT(text,
              HasSubstr("agent      ready  0.1.0  pid 42  up 2m05s  node n1  source files\n"));
  EXPECT_THAT(text, HasSubstr("engine     embedded up  pid 43  beat 250ms ago  connections 3\n"));
  EXPECT_THAT(text, HasSubstr("programs   1 of 1 attached"));
  EXPECT_THAT(text, HasSubstr("pods       wanted 2  enrolled 2  drift 0  skipped 0\n"));
  EXPECT_THAT(text, HasSubstr("maps       st_pods          2 of 4096 (0%)\n"));
  EXPECT_THAT(text, EndsWith("problems   none\n"));
}

TEST(CtlRender, status_names_what_is_wrong) {
  auto view = test::FakeViews().status();
  view.programs[0].attached = false;
  view.programs[0].detail = "the link is gone";
  view.pods_drift = 1;
  view.drift_reasons = {{"no_listener", 1}};
  view.problems = {{.severity = "error",
                    .object = "Namespace/shop",
                    .key = "k",
                    .value = "80x",
                    .reason = "no port",
                    .action = "fix it"}};
  const auto text = render_status(admin::to_json(view), kPlain, 0);
  EXPECT_THAT(text, HasSubstr("not attached st_connect4 at cgroup/connect4: the link is gone\n"));
  EXPECT_THAT(text, HasSubstr("drift: no_listener 1\n"));
  EXPECT_THAT(text, HasSubstr("  error Namespace/shop k \"80x\": no port\n    -> fix it\n"));
}

TEST(CtlRender, status_shows_twenty_problems_errors_first_and_says_where_the_others_are) {
  auto view = test::FakeViews().status();
  view.problems.assign(21, {.severity = "warning", .object = "Pod/a/b", .reason = "odd"});
  view.problems.push_back({.severity = "error", .object = "Pod/z/z", .reason = "bad"});
  const auto text = render_status(admin::to_json(view), kPlain, 0);
  EXPECT_THAT(text, HasSubstr("problems   22\n  error Pod/z/z: bad\n  warning Pod/a/b: odd\n"));
  EXPECT_THAT(text, EndsWith("odd\n  and 2 more: sidetrackctl status -o json\n"));
  EXPECT_EQ(admin::to_json(view)["problems"].size(), 22U);
  view.problems.resize(20);
  EXPECT_THAT(render_status(admin::to_json(view), kPlain, 0), EndsWith("odd\n"));
}

TEST(CtlRender, pods_are_a_table) {
  const auto text = render_pods(admin::to_json(test::FakeViews().pods("shop")), kPlain);
  EXPECT_THAT(text, HasSubstr("shop       web-0  redirect  enrolled  15900-15901 "));
  EXPECT_EQ(render_pods(nlohmann::json::object(), kPlain), "no pods\n");
}

TEST(CtlRender, pods_fit_a_screen_of_120_columns) {
  auto view = test::FakeViews().pods("shop").front();
  view.pod = "checkout-7d9c5b6f4-x8k2p";
  view.engine_ports = view.engine_ports_v6 = {15900, 15901, 15902, 15903};
  view.fast_path = "auto";
  view.fast_path_reason = "fp_other_namespace";
  view.state = "drift";
  view.reason = "netns_unreachable";
  view.reason_detail = "open netns /run/netns/cni-5e2f0c6f-0a0d: No such file or directory";
  const auto text = render_pods(admin::to_json(std::vector{view}), kPlain);
  EXPECT_THAT(text, HasSubstr("  15900-15903  "));
  EXPECT_THAT(text, HasSubstr("not on the fast path, fp_other_namespace\n"));
  EXPECT_THAT(text, HasSubstr("\n\nshop/checkout-7d9c5b6f4-x8k2p: " + view.reason_detail + "\n"));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 120U) << line;
  }
}

TEST(CtlRender, a_pod_that_was_captured_late_says_so) {
  auto view = test::FakeViews().pods("shop").front();
  EXPECT_EQ(render_pods(admin::to_json(std::vector{view}), kPlain).find("captured"),
            std::string::npos);
  view.captured_late_s = 62.8;
  EXPECT_THAT(render_pods(admin::to_json(std::vector{view}), kPlain),
              HasSubstr("shop/web-0: ran for 62.8 s before it was captured\n"));
}

TEST(CtlRender, ports_of_both_families_are_shown_where_they_differ) {
  auto view = test::FakeViews().pods("shop").front();
  view.engine_ports = {15900, 15902};
  view.engine_ports_v6 = {15901};
  EXPECT_THAT(render_pods(admin::to_json(std::vector{view}), kPlain),
              HasSubstr("  15900, 15902 v6 15901  "));
}

TEST(CtlRender, offending_text_of_a_problem_is_escaped_and_cut) {
  auto view = test::FakeViews().status();
  view.problems = {{.severity = "error",
                    .object = "File/x.yaml",
                    .key = "line 1",
                    .value = "\x1b]0;owned\x07" + std::string(100'000, 'x'),
                    .reason = "no YAML",
                    .action = "fix it"}};
  const auto text = render_status(admin::to_json(view), kPlain, 0);
  EXPECT_THAT(text, HasSubstr("\"\\x1b]0;owned\\x07xxx"));
  EXPECT_THAT(text, HasSubstr("bytes more)\": no YAML\n"));
  EXPECT_LT(text.size(), 1500U);
}

TEST(CtlRender, explain_shows_sentence_rule_path_and_endpoints) {
  const auto text = render_explain(
      admin::to_json(*test::FakeViews().explain("shop", "web-0", "10.0.0.1:8500")), kPlain);
  EXPECT_THAT(
      text,
      HasSubstr("shop/web-0 -> 10.0.0.1:8500: direct\nPort 8500 is excluded by Namespace/shop.\n"));
  EXPECT_THAT(text,
              HasSubstr("rule       Namespace/shop  sidetrack.io/exclude-outbound-ports = 8500\n"));
  EXPECT_THAT(text, HasSubstr("endpoints  10.1.0.9:8500\n"));
  EXPECT_THAT(text,
              HasSubstr("fast path  no: fp_off, the fast path is off for one of the two pods\n"));
}

TEST(CtlRender, flows_and_counters_show_sizes_and_durations) {
  test::FakeViews views;
  const auto flows = render_flows(admin::to_json(views.flows({})), kPlain, 0);
  EXPECT_THAT(flows, HasSubstr("shop/web-0  10.1.0.5:40000  10.96.0.10:80  10.1.0.9:8080  engine  "
                               "redirected  100B  2.0KiB  2.5s"));
  views.flow_views[0].fast_path_reason = "fp_blocking";
  EXPECT_THAT(render_flows(admin::to_json(views.flows({})), kPlain, 0),
              HasSubstr("fin, fp_blocking"));
  views.flow_views[0].end = 0;
  views.flow_views[0].close.clear();
  EXPECT_THAT(render_flows(admin::to_json(views.flows({})), kPlain, 0),
              HasSubstr("open, fp_blocking"));
  const auto counters = render_counters(admin::to_json(views.counters()), kPlain);
  EXPECT_THAT(counters, HasSubstr("shop       connections  excluded_port       2\n"));
  EXPECT_THAT(counters, HasSubstr("shop       losses       flows_dropped       4\n"));
}

TEST(CtlRender, answers_of_another_shape_do_no_harm) {
  const auto odd = nlohmann::json::parse(
      R"({"pods": 3, "flows": [7], "counters": [{"connections": []}], "agent": null})");
  EXPECT_NO_THROW(static_cast<void>(render_status(odd, kPlain, 0)));
  EXPECT_NO_THROW(static_cast<void>(render_flows(odd, kPlain, 0)));
  EXPECT_NO_THROW(static_cast<void>(render_pods(odd, kPlain)));
  EXPECT_NO_THROW(static_cast<void>(render_counters(odd, kPlain)));
}

TEST(CtlRender, bypass_says_what_becomes_of_connections_and_how_to_undo_it) {
  EXPECT_THAT(render_bypass({.on = true, .attached = true, .pin_dir = "/b/c"}, kPlain),
              AllOf(StartsWith("bypass is on: new connections of this node go direct, open ones "),
                    EndsWith("\nUndo: sidetrackctl bypass off --pin-dir /b/c\n")));
  EXPECT_THAT(render_bypass({.on = true, .attached = true, .pin_dir = ""}, kPlain),
              EndsWith("\nUndo: sidetrackctl bypass off\n"));
  EXPECT_EQ(render_bypass({.on = false, .attached = true, .pin_dir = ""}, kPlain),
            "bypass is off: new connections go as their policy says.\n");
  EXPECT_THAT(render_bypass({.on = false, .attached = false, .pin_dir = ""}, kPlain),
              HasSubstr("off, but no program of Sidetrack is attached: new connections go direct"));
}

TEST(Subject, of_a_problem_has_no_hole_where_there_is_no_key) {
  EXPECT_EQ(subject_of({{"object", "Namespace/shop"}, {"key", ""}}), "Namespace/shop");
  EXPECT_EQ(subject_of({{"object", "Pod/shop/web"}, {"key", "mode"}}), "Pod/shop/web mode");
}

}  // namespace
}  // namespace sidetrack::ctl
