// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "agent/admin/json.h"
#include "agent/ctl/doctor.h"
#include "tests/unit/admin_fake_views.h"

namespace sidetrack::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
const Painter kPlain(Painter::Mode::kPlain);

std::string text_of_findings(const Findings& findings) {
  return render_findings(findings, kPlain);
}

Findings findings_of(const admin::StatusView& view) {
  Findings findings;
  check_status(admin::to_json(view), nlohmann::json::object(), findings);
  return findings;
}

void write_file(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

TEST(Doctor, healthy_agent_has_no_findings) {
  EXPECT_TRUE(is_healthy(findings_of(test::FakeViews().status())));
}

TEST(Doctor, an_agent_of_another_version_is_a_hint) {
  auto view = test::FakeViews().status();
  view.version = "9.8.7";
  const auto findings = findings_of(view);
  EXPECT_THAT(text_of_findings(findings),
              HasSubstr("the agent is version 9.8.7, this sidetrackctl"));
  EXPECT_TRUE(is_healthy(findings));
}

TEST(Doctor, finds_what_the_status_shows) {
  auto view = test::FakeViews().status();
  view.engines[0].state = "down";
  view.programs[0].attached = false;
  view.pods_drift = 2;
  view.maps[0].entries = 4000;
  view.problems = {{.severity = "warning",
                    .object = "Pod/a/b",
                    .key = "k",
                    .value = "v",
                    .reason = "odd",
                    .action = "look"}};
  const auto findings = findings_of(view);
  const auto text = text_of_findings(findings);
  EXPECT_FALSE(is_healthy(findings));
  EXPECT_THAT(text, HasSubstr("error   the embedded engine is down\n"));
  EXPECT_THAT(text, HasSubstr("error   st_connect4 is not attached to cgroup/connect4\n"));
  EXPECT_THAT(text, HasSubstr("error   2 pods should be enrolled and are not\n"));
  EXPECT_THAT(text, HasSubstr("warning st_pods is 98% full (4000 of 4096)\n"));
  EXPECT_THAT(text, HasSubstr("warning Pod/a/b k \"v\": odd\n          -> look\n"));
}

TEST(Doctor, shows_twenty_findings_of_a_group_errors_first_and_has_all_in_json) {
  auto view = test::FakeViews().status();
  view.problems.assign(21, {.severity = "warning", .object = "Pod/a/b", .reason = "odd"});
  view.problems.push_back({.severity = "error", .object = "Pod/z/z", .reason = "bad"});
  const auto findings = findings_of(view);
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text, HasSubstr("objects\n  error   Pod/z/z: bad\n  warning Pod/a/b: odd\n"));
  EXPECT_THAT(text, HasSubstr("odd\n  and 2 more: sidetrackctl doctor -o json\n\n1 error, 21 w"));
  EXPECT_THAT(to_json(findings).dump(), HasSubstr("Pod/z/z: bad"));
  EXPECT_EQ(to_json(findings)["findings"].size(), findings.size());
}

TEST(Doctor, names_each_pod_that_is_not_enrolled) {
  auto view = test::FakeViews().status();
  view.pods_drift = 25;
  nlohmann::json pods = {{"pods", nlohmann::json::array()}};
  for (int i = 0; i < 24; ++i) {
    pods["pods"].push_back({{"namespace", "shop"},
                            {"pod", "web-" + std::to_string(i)},
                            {"state", "drift"},
                            {"reason", "no_netns"}});
  }
  Findings findings;
  check_status(admin::to_json(view), pods, findings);
  EXPECT_THAT(to_json(findings).dump(), HasSubstr("shop/web-23 should be enrolled and is not"));
  EXPECT_THAT(to_json(findings).dump(), HasSubstr("1 more pods should be enrolled and are not"));
  EXPECT_THAT(text_of_findings(findings), HasSubstr("  and 5 more: sidetrackctl doctor -o json\n"));
}

TEST(Doctor, a_pod_that_is_not_enrolled_is_one_finding) {
  auto view = test::FakeViews().status();
  view.pods_drift = 2;
  view.problems = {
      {.severity = "error", .object = "Pod/shop/web-0", .key = "no_netns", .reason = "of web-0"},
      {.severity = "error", .object = "Pod/shop/web-0", .key = "other", .reason = "of its label"},
      {.severity = "error", .object = "Pod/shop/web-1", .key = "no_netns", .reason = "of web-1"}};
  const nlohmann::json pods = {
      {"pods",
       {{{"namespace", "shop"}, {"pod", "web-0"}, {"state", "drift"}, {"reason", "no_netns"}}}}};
  Findings findings;
  check_status(admin::to_json(view), pods, findings);
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text, HasSubstr("shop/web-0 should be enrolled and is not: no_netns"));
  EXPECT_THAT(text, Not(HasSubstr("of web-0"))) << "it is named";
  EXPECT_THAT(text, HasSubstr("of its label")) << "that is another problem";
  EXPECT_THAT(text, HasSubstr("of web-1")) << "the pod came between the two answers";
}

TEST(Doctor, a_pod_with_more_addresses_is_a_hint_where_it_is_redirected) {
  const auto pod = [](const char* name, const char* mode, const std::vector<std::string>& others) {
    return nlohmann::json{{"namespace", "shop"},
                          {"pod", name},
                          {"state", "enrolled"},
                          {"mode", mode},
                          {"other_addresses", others}};
  };
  const nlohmann::json pods = {
      {"pods",
       {pod("web-0", "redirect", {"10.245.0.2", "fd00::2", "fd00::3"}),
        pod("web-1", "redirect", {}), pod("web-2", "passthrough", {"10.245.0.3"})}}};
  Findings findings;
  check_status(admin::to_json(test::FakeViews().status()), pods, findings);
  EXPECT_TRUE(is_healthy(findings));
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text,
              HasSubstr("shop/web-0 has more addresses than one of a family (10.245.0.2 and 2 "
                        "more): redirected connections that leave from these show the first"));
  EXPECT_THAT(text, Not(HasSubstr("web-1 has")));
  EXPECT_THAT(text, Not(HasSubstr("web-2 has")));
}

TEST(Doctor, an_engine_that_is_down_is_one_finding_with_its_pods_and_the_agents_advice) {
  auto view = test::FakeViews().status();
  view.engines = {{.kind = "external", .state = "down", .detail = "nothing listens"}};
  view.pods_enrolled = 1;
  view.pods_drift = 1;
  view.drift_reasons = {{"engine_down", 1}};
  view.problems = {{.severity = "error",
                    .object = "engine",
                    .key = "engine_down",
                    .reason = "nothing listens",
                    .action = "start the proxy"}};
  const nlohmann::json pods = {
      {"pods",
       {{{"namespace", "shop"}, {"pod", "web-0"}, {"state", "drift"}, {"reason", "engine_down"}}}}};
  Findings findings;
  check_status(admin::to_json(view), pods, findings);
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text,
              HasSubstr("error   the external engine is down: nothing listens; pods that wait "
                        "for it: 1\n          -> start the proxy\n"));
  EXPECT_THAT(text, HasSubstr("hint    2 wanted, 1 enrolled\n"));
  EXPECT_THAT(text, ::testing::EndsWith("\n1 error, 0 warnings\n"));
}

TEST(Doctor, pods_that_miss_something_else_than_the_engine_are_findings_of_their_own) {
  auto view = test::FakeViews().status();
  view.engines[0].state = "down";
  view.pods_drift = 2;
  view.drift_reasons = {{"engine_down", 1}, {"no_netns", 1}};
  view.problems = {{.severity = "error", .object = "engine", .key = "engine_down"}};
  const nlohmann::json pods = {
      {"pods",
       {{{"namespace", "shop"}, {"pod", "web-0"}, {"state", "drift"}, {"reason", "engine_down"}},
        {{"namespace", "shop"}, {"pod", "web-1"}, {"state", "drift"}, {"reason", "no_netns"}}}}};
  Findings findings;
  check_status(admin::to_json(view), pods, findings);
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text, HasSubstr("shop/web-1 should be enrolled and is not: no_netns"));
  EXPECT_THAT(text, ::testing::EndsWith("\n2 errors, 0 warnings\n"));
}

TEST(Doctor, pods_without_an_engine_that_is_said_to_be_up_are_findings) {
  auto view = test::FakeViews().status();
  view.pods_drift = 1;
  view.drift_reasons = {{"engine_down", 1}};
  EXPECT_THAT(text_of_findings(findings_of(view)),
              HasSubstr("error   1 pods should be enrolled and are not\n"));
}

TEST(Doctor, says_why_a_kernel_cannot_have_the_fast_path) {
  auto view = test::FakeViews().status();
  view.fast_path_reason = "self_test: programs: st_adopt: invalid func unknown#160";
  const auto findings = findings_of(view);
  EXPECT_TRUE(is_healthy(findings));
  EXPECT_THAT(text_of_findings(findings),
              HasSubstr("hint    this kernel cannot have it: self_test: programs: st_adopt: "
                        "invalid func unknown#160\n"));
}

TEST(Doctor, says_that_a_kernel_charges_no_reader) {
  auto view = test::FakeViews().status();
  view.fast_path_reason = "uncharged";
  const auto findings = findings_of(view);
  EXPECT_TRUE(is_healthy(findings));
  EXPECT_THAT(text_of_findings(findings),
              HasSubstr("hint    it is off: this kernel charges no reader for what waits past "
                        "TCP\n          -> --fast-path uncharged has it all the same"));
}

TEST(Doctor, does_not_blame_the_kernel_for_an_option) {
  auto view = test::FakeViews().status();
  view.fast_path_reason = "this kernel does not load the fentry sentinel: set another";
  EXPECT_THAT(text_of_findings(findings_of(view)),
              HasSubstr("hint    it is off: this kernel does not load the fentry sentinel: set"));
}

TEST(Doctor, a_fast_path_that_nobody_wants_is_no_finding) {
  auto view = test::FakeViews().status();
  EXPECT_THAT(text_of_findings(findings_of(view)), HasSubstr("ok      it is off: node_off\n"));
  view.fast_path = "on";
  view.fast_path_reason = "";
  EXPECT_THAT(text_of_findings(findings_of(view)), HasSubstr("ok      it is on\n"));
}

TEST(Doctor, counts_in_its_last_line) {
  Findings findings = {{Severity::kError, "node", "a", "b"}};
  EXPECT_THAT(text_of_findings(findings), ::testing::EndsWith("\n1 error, 0 warnings\n"));
  findings.push_back({Severity::kWarning, "node", "a", "b"});
  findings.push_back({Severity::kError, "node", "a", "b"});
  EXPECT_THAT(text_of_findings(findings), ::testing::EndsWith("\n2 errors, 1 warning\n"));
}

TEST(Doctor, foreign_programs_are_named_by_id) {
  Findings findings;
  check_foreign({{.hook = "cgroup/connect4", .id = 5, .name = "theirs"},
                 {.hook = "sockops", .id = 6, .name = "st_sockops"}},
                {6}, findings);
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings[0].what, "another program is on cgroup/connect4: id 5 theirs");
}

TEST(Doctor, another_sidetrack_is_named_once_with_what_to_do) {
  Findings findings;
  check_foreign({{.hook = "cgroup/connect4", .id = 5, .name = "st_connect4"},
                 {.hook = "sockops", .id = 6, .name = "st_sockops"}},
                {}, findings);
  EXPECT_TRUE(findings.empty());
  check_others(
      {{.cgroup_dir = "/cg/pods", .program_id = 5, .pin_dir = "/sys/fs/bpf/b", .agent_runs = true}},
      Own::kFound, "/sys/fs/bpf/a", findings);
  EXPECT_FALSE(is_healthy(findings));
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text, HasSubstr("error   another Sidetrack is attached to cgroup /cg/pods: program "
                              "st_connect4 (id 5), pinned at /sys/fs/bpf/b, its agent runs"));
  EXPECT_THAT(text, HasSubstr("-> end one of the two agents; then sidetrack-agent uninstall "
                              "--pin-dir /sys/fs/bpf/b\n"));
}

TEST(Doctor, another_sidetrack_without_pins_or_agent_says_so) {
  Findings findings;
  check_others({{.program_id = 5}, {.program_id = 7, .pin_dir = "/b/c"}}, Own::kFound, "/b/a",
               findings);
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text, HasSubstr("(id 5), its pins are not to be seen from here"));
  EXPECT_THAT(text, HasSubstr("(id 7), pinned at /b/c, no agent runs"));
  EXPECT_THAT(text, HasSubstr("-> sidetrack-agent uninstall --pin-dir /b/c\n"));
}

TEST(Doctor, the_pins_of_an_agent_that_is_gone_are_not_anothers) {
  Findings findings;
  check_others({{.cgroup_dir = "/cg", .program_id = 7, .pin_dir = "/b/c"}}, Own::kMissing, "/b/a",
               findings);
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text, HasSubstr("warning Sidetrack is attached to cgroup /cg: program st_connect4 "
                              "(id 7), pinned at /b/c, no agent runs\n"));
  EXPECT_THAT(text, HasSubstr("-> start sidetrack-agent with --pin-dir /b/c: it takes over; or"));
}

TEST(Doctor, without_an_agent_only_what_is_pinned_is_said_to_go_on) {
  const Error error{ErrorCode::kIo, ENOENT, "the agent cannot be reached"};
  Findings after_uninstall;
  check_no_agent(error, Own::kMissing, after_uninstall);
  check_others({}, Own::kMissing, "/b/a", after_uninstall);
  const auto text = text_of_findings(after_uninstall);
  EXPECT_THAT(text, HasSubstr("cannot be reached\n          -> start sidetrack-agent\n"));
  EXPECT_THAT(text,
              HasSubstr("nothing of Sidetrack is in the kernel: nothing is pinned at /b/a, "));
  Findings killed;
  check_no_agent(error, Own::kFound, killed);
  check_others({}, Own::kFound, "/b/a", killed);
  EXPECT_THAT(text_of_findings(killed), HasSubstr("until then what is pinned goes on as it is"));
  EXPECT_EQ(killed.size(), 1U);
}

TEST(Doctor, old_kernel_without_btf_is_an_error) {
  const test::TemporaryFolder root;
  Findings findings;
  check_kernel({.root = root.path(), .kernel_release = "5.4.0-1"}, findings);
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text, HasSubstr("older than 5.10"));
  EXPECT_THAT(text, HasSubstr("/sys/kernel/btf/vmlinux is missing"));
}

TEST(Doctor, kernel_on_which_the_agent_does_not_start_is_an_error) {
  const test::TemporaryFolder root;
  write_file(root.file("sys/kernel/btf/vmlinux"), "");
  for (const auto& [release, healthy] :
       {std::pair{"5.9.16", false}, {"5.10.0-46-cloud-amd64", true}, {"6.1.0", true}}) {
    Findings findings;
    check_kernel({.root = root.path(), .kernel_release = release}, findings);
    EXPECT_EQ(is_healthy(findings), healthy) << text_of_findings(findings);
  }
}

TEST(Doctor, kernel_options_are_looked_up_in_boot) {
  const test::TemporaryFolder root;
  write_file(
      root.file("boot/config-6.1.0"),
      "CONFIG_BPF_SYSCALL=y\n# CONFIG_CGROUP_BPF is not set\nCONFIG_INET=y\nCONFIG_NET_NS=y\n");
  write_file(root.file("sys/kernel/btf/vmlinux"), "");
  Findings findings;
  check_kernel({.root = root.path(), .kernel_release = "6.1.0"}, findings);
  EXPECT_THAT(text_of_findings(findings),
              HasSubstr("CONFIG_CGROUP_BPF is not set in /boot/config-6.1.0"));
  EXPECT_FALSE(is_healthy(findings));
}

TEST(Doctor, missing_mounts_are_errors) {
  const test::TemporaryFolder root;
  write_file(root.file("proc/self/mountinfo"), "1 0 0:1 / / rw - ext4 /dev/x rw\n");
  Findings findings;
  check_mounts({.root = root.path(), .kernel_release = ""}, "/sys/fs/bpf/sidetrack", findings);
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text, HasSubstr("no cgroup2 file system is mounted"));
  EXPECT_THAT(text, HasSubstr("no bpffs holds /sys/fs/bpf/sidetrack"));
  EXPECT_THAT(text, HasSubstr("mount -t bpf bpf /sys/fs/bpf"));
}

TEST(Doctor, no_bpffs_is_mounted_where_it_would_not_hold_the_pins) {
  const test::TemporaryFolder root;
  write_file(root.file("proc/self/mountinfo"), "1 0 0:1 / /sys/fs/bpf rw - bpf bpf rw\n");
  Findings findings;
  check_mounts({.root = root.path(), .kernel_release = ""}, "/tmp/x/st", findings);
  const auto text = text_of_findings(findings);
  EXPECT_THAT(text, HasSubstr("no bpffs holds /tmp/x/st"));
  EXPECT_THAT(text, HasSubstr("below a mounted bpffs, as /sys/fs/bpf/sidetrack does"));
  EXPECT_THAT(text, Not(HasSubstr("mount -t bpf")));
}

TEST(Doctor, sysctls_are_judged) {
  const test::TemporaryFolder root;
  write_file(root.file("proc/sys/kernel/unprivileged_bpf_disabled"), "0\n");
  write_file(root.file("proc/sys/net/ipv4/ip_local_port_range"), "40000\t50000\n");
  write_file(root.file("proc/sys/net/ipv4/tcp_tw_reuse"), "0\n");
  Findings findings;
  check_sysctls({.root = root.path(), .kernel_release = ""}, findings);
  ASSERT_EQ(findings.size(), 3U);
  EXPECT_EQ(findings[0].severity, Severity::kWarning);
  EXPECT_EQ(findings[1].severity, Severity::kHint);
  EXPECT_THAT(findings[1].what, HasSubstr("only 10001 local ports"));
  EXPECT_THAT(findings[1].action, HasSubstr("to 16000 60999 (a sysctl"));
  EXPECT_THAT(findings[1].action, HasSubstr("without --listener-ports"));
}

}  // namespace
}  // namespace sidetrack::ctl
