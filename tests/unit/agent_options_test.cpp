// SPDX-License-Identifier: Apache-2.0
// What each option of sidetrack-agent becomes, and which of its three places wins.
#include "agent/main/kubernetes_node.h"
#include "tests/unit/agent_options_fixture.h"

namespace sidetrack::agent::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

Options run_options(std::vector<std::string> more = {}) {
  auto options = run_with(std::move(more));
  EXPECT_TRUE(options) << (options ? "" : options.error().message);
  return options ? *options : Options{};
}

TEST_F(OptionsTest, have_the_documented_defaults) {
  unsetenv("POD_NAMESPACE");
  const Options options = run_options();
  EXPECT_EQ(options.command, Command::kRun);
  EXPECT_EQ(options.source, "files");
  EXPECT_EQ(options.objects_dir, "/o");
  EXPECT_EQ(options.namespace_name, "");
  EXPECT_EQ(options.state_dir, "/run/sidetrack");
  EXPECT_EQ(options.cache_dir, "/var/lib/sidetrack");
  EXPECT_EQ(options.pin_dir, "/sys/fs/bpf/sidetrack");
  EXPECT_EQ(options.cgroup_dir, "");
  EXPECT_EQ(options.engine_cgroup_dir, "");
  EXPECT_FALSE(options.standby);
  EXPECT_EQ(options.engine, reconcile::EngineKind::kEmbedded);
  EXPECT_EQ(options.listener_port_low, 15900);
  EXPECT_EQ(options.listener_port_high, 15999);
  EXPECT_EQ(options.listeners_per_pod, 4);
  EXPECT_TRUE(options.compat.empty());
  EXPECT_EQ(options.http, "127.0.0.1:15880");
  EXPECT_EQ(options.log_level, LogLevel::kInfo);
  EXPECT_EQ(options.log_format, LogFormat::kText);
  EXPECT_EQ(options.drain, std::chrono::seconds(30));
  EXPECT_FALSE(options.lists.exclude_ports.has_value());
}

TEST_F(OptionsTest, take_paths_and_names_as_they_are) {
  const Options options =
      run_options({"--node",          "n1",   "--namespace", "mesh", "--state-dir", "/s",
                   "--cache-dir",     "/c",   "--pin-dir",   "/b/p", "--cgroup",    "/g",
                   "--engine-cgroup", "/g/e", "--http",      "off",  "--log-level", "debug",
                   "--log-format",    "json", "--standby"});
  EXPECT_EQ(options.node_name, "n1");
  EXPECT_EQ(options.namespace_name, "mesh");
  EXPECT_EQ(options.state_dir, "/s");
  EXPECT_EQ(options.cache_dir, "/c");
  EXPECT_EQ(options.pin_dir, "/b/p");
  EXPECT_EQ(options.cgroup_dir, "/g");
  EXPECT_EQ(options.engine_cgroup_dir, "/g/e");
  EXPECT_EQ(options.http, "off");
  EXPECT_EQ(options.log_level, LogLevel::kDebug);
  EXPECT_EQ(options.log_format, LogFormat::kJson);
  EXPECT_TRUE(options.standby);
}

// The plugin's entry, as the installer would write it.
cni::install::Entry entry_with(std::vector<std::string> more) {
  return installer_settings(run_options(std::move(more))).entry;
}

TEST_F(OptionsTest, tell_the_plugin_what_it_does_by_default) {
  const cni::install::Entry entry = entry_with({"--cache-dir", "/c", "--state-dir", "/s"});
  EXPECT_EQ(entry.timeout_ms, 2000U);
  EXPECT_EQ(entry.log_file, "/c/cni.log");
  EXPECT_EQ(entry.on_agent_down, "allow");
  EXPECT_EQ(entry.deny_for_seconds, 3600U);
  EXPECT_FALSE(entry.status_checks_agent);
  EXPECT_EQ(entry.socket, "/s/cni.sock");
  EXPECT_EQ(entry.enrolled_namespaces, "/c/enrolled-namespaces");
}

TEST_F(OptionsTest, set_every_key_of_the_plugins_entry) {
  const cni::install::Entry entry = entry_with(
      {"--cni-timeout", "500ms", "--cni-log-file", "/l", "--cni-on-agent-down", "deny",
       "--cni-deny-for", "90m", "--cni-status-checks-agent", "on", "--namespace", "mesh"});
  EXPECT_EQ(entry.timeout_ms, 500U);
  EXPECT_EQ(entry.log_file, "/l");
  EXPECT_EQ(entry.on_agent_down, "deny");
  EXPECT_EQ(entry.deny_for_seconds, 5400U);
  EXPECT_TRUE(entry.status_checks_agent);
  EXPECT_EQ(entry.own_namespace, "mesh");
  EXPECT_EQ(entry_with({"--cni-timeout", "1m"}).timeout_ms, 60'000U);
  EXPECT_EQ(entry_with({"--cni-deny-for", "0s"}).deny_for_seconds, 0U);
  EXPECT_EQ(entry_with({"--cni-deny-for", "1m"}).deny_for_seconds, 60U);
  EXPECT_EQ(entry_with({"--cni-deny-for", "8760h"}).deny_for_seconds, 31'536'000U);
  EXPECT_EQ(entry_with({"--cni-log-file", "off"}).log_file, "");
}

TEST_F(OptionsTest, keep_the_lists_as_text) {
  const Options options = run_options(
      {"--exclude-outbound-ports", "8500,8600-8700", "--exclude-outbound-cidrs", "10.9.0.0/16",
       "--include-outbound-ports", "80", "--include-outbound-cidrs", "fd00::/8"});
  EXPECT_EQ(options.lists.exclude_ports, "8500,8600-8700");
  EXPECT_EQ(options.lists.exclude_cidrs, "10.9.0.0/16");
  EXPECT_EQ(options.lists.include_ports, "80");
  EXPECT_EQ(options.lists.include_cidrs, "fd00::/8");
}

TEST_F(OptionsTest, tell_an_empty_include_list_from_none) {
  EXPECT_EQ(run_options({"--config", config("include-outbound-ports =\n")}).lists.include_ports,
            "");
  EXPECT_FALSE(run_options().lists.include_ports.has_value());
}

TEST_F(OptionsTest, name_the_engine) {
  EXPECT_EQ(run_options({"--engine", "none"}).engine, reconcile::EngineKind::kNone);
  const Options options = run_options({"--engine", "external=10.1.2.3:15001,[fd00::1]:15002"});
  EXPECT_EQ(options.engine, reconcile::EngineKind::kExternal);
  EXPECT_EQ(policy::format_endpoint(options.external.v4.address, options.external.v4.port),
            "10.1.2.3:15001");
  EXPECT_EQ(policy::format_endpoint(options.external.v6.address, options.external.v6.port),
            "[fd00::1]:15002");
}

TEST_F(OptionsTest, of_an_external_engine_of_one_family_leave_the_other_out) {
  EXPECT_EQ(run_options({"--engine", "external=10.1.2.3:15001"}).external.v6.port, 0);
}

TEST_F(OptionsTest, set_listener_ports_and_their_number) {
  const Options options =
      run_options({"--listener-ports", "20000-20007", "--listeners-per-pod", "8"});
  EXPECT_EQ(options.listener_port_low, 20000);
  EXPECT_EQ(options.listener_port_high, 20007);
  EXPECT_EQ(options.listeners_per_pod, 8);
}

TEST_F(OptionsTest, say_where_the_fast_path_is_on) {
  const auto says = [&](const std::string& value) {
    const FastPathOptions fast = run_with({"--fast-path", value})->fast_path;
    return std::pair{fast.on, fast.uncharged};
  };
  EXPECT_EQ(says("auto"), (std::pair{true, false}));
  EXPECT_EQ(says("uncharged"), (std::pair{true, true}));
  EXPECT_EQ(says("off"), (std::pair{false, false}));
}

TEST_F(OptionsTest, of_the_fast_path_have_the_documented_defaults) {
  const FastPathOptions fast = run_options().fast_path;
  EXPECT_TRUE(fast.on);
  EXPECT_FALSE(fast.uncharged);
  EXPECT_EQ(fast.window, 1U << 20);
  EXPECT_EQ(fast.round_trips, 4U);
  EXPECT_EQ(fast.probation, std::chrono::seconds(30));
  EXPECT_FALSE(fast.loopback);
  EXPECT_EQ(fast.sentinel, dataplane::Sentinel::kAuto);
}

TEST_F(OptionsTest, of_the_fast_path_are_taken_up_to_their_limits) {
  const FastPathOptions least =
      run_options({"--fast-path-window", "16KiB", "--fast-path-round-trips", "1",
                   "--fast-path-probation", "0s", "--fast-path-loopback", "on"})
          .fast_path;
  EXPECT_EQ(least.window, 16U << 10);
  EXPECT_EQ(least.round_trips, 1U);
  EXPECT_EQ(least.probation, std::chrono::milliseconds(0));
  EXPECT_TRUE(least.loopback);
  const FastPathOptions most =
      run_options({"--fast-path-window", "64MiB", "--fast-path-round-trips", "1000",
                   "--fast-path-probation", "2m", "--fast-path-loopback", "off"})
          .fast_path;
  EXPECT_EQ(most.window, 64U << 20);
  EXPECT_EQ(most.round_trips, 1000U);
  EXPECT_EQ(most.probation, std::chrono::minutes(2));
  EXPECT_FALSE(most.loopback);
  EXPECT_EQ(run_options({"--fast-path-probation", "250ms"}).fast_path.probation,
            std::chrono::milliseconds(250));
}

TEST_F(OptionsTest, name_the_sentinel) {
  using dataplane::Sentinel;
  const auto says = [&](const std::string& value) {
    return run_options({"--fast-path-sentinel", value}).fast_path.sentinel;
  };
  EXPECT_EQ(says("auto"), Sentinel::kAuto);
  EXPECT_EQ(says("fentry"), Sentinel::kFentry);
  EXPECT_EQ(says("tracepoint"), Sentinel::kTracepoint);
  EXPECT_EQ(says("off"), Sentinel::kOff);
}

TEST_F(OptionsTest, list_whose_annotations_are_honoured) {
  EXPECT_THAT(run_options({"--compat", "istio,linkerd,kuma"}).compat,
              ElementsAre(policy::Compat::kIstio, policy::Compat::kLinkerd, policy::Compat::kKuma));
  EXPECT_TRUE(run_options({"--compat", "none"}).compat.empty());
}

TEST_F(OptionsTest, know_seconds_and_minutes) {
  const auto drain = [](const char* time) {
    const auto options = parse({"uninstall", "--drain", time});
    return options ? options->drain : std::chrono::seconds(-1);
  };
  EXPECT_EQ(drain("0s"), std::chrono::seconds(0));
  EXPECT_EQ(drain("5s"), std::chrono::seconds(5));
  EXPECT_EQ(drain("2m"), std::chrono::seconds(120));
}

TEST_F(OptionsTest, of_the_other_command_may_be_in_a_shared_file_and_environment) {
  set("SIDETRACK_OBJECTS", "/o");
  set("SIDETRACK_DRAIN", "7s");
  EXPECT_TRUE(parse({"run", "--config", config("drain = 9s\n")}));
  const auto options = parse({"uninstall", "--config", config("objects = /o\n")});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->drain, std::chrono::seconds(7));
}

TEST_F(OptionsTest, come_from_the_environment) {
  set("SIDETRACK_STATE_DIR", "/from-environment");
  set("SIDETRACK_LISTENERS_PER_POD", "2");
  EXPECT_EQ(run_options().state_dir, "/from-environment");
  EXPECT_EQ(run_options().listeners_per_pod, 2);
}

TEST_F(OptionsTest, take_node_and_namespace_from_the_downward_api) {
  set("NODE_NAME", "node-of-env");
  set("POD_NAMESPACE", "mesh");
  EXPECT_EQ(run_options().node_name, "node-of-env");
  EXPECT_EQ(run_options().namespace_name, "mesh");
  EXPECT_EQ(run_options({"--node", "n1"}).node_name, "n1");
}

TEST_F(OptionsTest, are_not_disturbed_by_variables_that_only_look_like_ours) {
  set("SIDETRACK_SERVICE_HOST", "10.0.0.1");  // what Kubernetes sets for a Service named sidetrack
  set("SIDETRACK_PORT_80_TCP", "tcp://10.0.0.1:80");
  EXPECT_EQ(run_options().state_dir, "/run/sidetrack");
}

TEST_F(OptionsTest, come_from_a_file) {
  const std::string path = config(
      "# node\nstate-dir = /from-file\nlisteners-per-pod = 3\nexclude-outbound-ports = 8500\n");
  const Options options = run_options({"--config", path});
  EXPECT_EQ(options.state_dir, "/from-file");
  EXPECT_EQ(options.listeners_per_pod, 3);
  EXPECT_EQ(options.lists.exclude_ports, "8500");
}

TEST_F(OptionsTest, on_the_command_line_win_over_the_environment_and_that_over_the_file) {
  const std::string path = config("state-dir = /file\ncache-dir = /file\npin-dir = /file/p\n");
  set("SIDETRACK_STATE_DIR", "/environment");
  set("SIDETRACK_CACHE_DIR", "/environment");
  const Options options = run_options({"--config", path, "--state-dir", "/line"});
  EXPECT_EQ(options.state_dir, "/line");
  EXPECT_EQ(options.cache_dir, "/environment");
  EXPECT_EQ(options.pin_dir, "/file/p");
}

TEST_F(OptionsTest, file_may_be_named_by_the_environment) {
  set("SIDETRACK_CONFIG", config("state-dir = /file\n"));
  EXPECT_EQ(run_options().state_dir, "/file");
}

TEST_F(OptionsTest, of_uninstall_need_no_objects) {
  const auto options = parse({"uninstall", "--pin-dir", "/b/p", "--drain", "1s"});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->command, Command::kUninstall);
  EXPECT_EQ(options->pin_dir, "/b/p");
}

// The chart's preStop: what it needs to know is in the agent's file.
TEST_F(OptionsTest, of_leave_are_in_the_file_of_the_agent) {
  const auto options = parse({"leave", "--pin-dir", "/b/p"});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->command, Command::kLeave);
  EXPECT_EQ(options->pin_dir, "/b/p");
  EXPECT_FALSE(parse({"leave", "--drain", "1s"}));
  EXPECT_THAT(help_text(Command::kLeave), HasSubstr("preStop"));
}

TEST(Help, is_shown_when_asked_for) {
  EXPECT_EQ(parse({"--help"})->command, Command::kHelp);
  EXPECT_EQ(parse({"--version"})->command, Command::kVersion);
}

TEST(Help, of_a_command_is_its_own) {
  for (const char* word : {"--help", "-h"}) {
    EXPECT_EQ(parse({"run", word})->command, Command::kHelp);
    EXPECT_EQ(parse({"run", word})->help_of, Command::kRun);
    EXPECT_EQ(parse({"uninstall", word})->help_of, Command::kUninstall);
  }
  EXPECT_THAT(help_text(Command::kRun), HasSubstr("--listener-ports arg (=15900-15999)"));
  EXPECT_THAT(help_text(Command::kRun), Not(HasSubstr("--drain arg")));
  EXPECT_THAT(help_text(Command::kUninstall), HasSubstr("--drain arg (=30s)"));
  EXPECT_THAT(help_text(Command::kUninstall), Not(HasSubstr("--listener-ports")));
}

TEST(Help, says_commands_options_defaults_and_exit_codes) {
  const std::string text = help_text(Command::kHelp);
  EXPECT_THAT(text, HasSubstr("sidetrack-agent run [options]"));
  EXPECT_THAT(text, HasSubstr("--listener-ports arg (=15900-15999)"));
  EXPECT_THAT(text, HasSubstr("--drain arg (=30s)"));
  EXPECT_THAT(text, HasSubstr("Exit codes: 0 done"));
}

}  // namespace
}  // namespace sidetrack::agent::testing
