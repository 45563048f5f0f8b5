// SPDX-License-Identifier: Apache-2.0
// What sidetrack-agent refuses, and the words it does so with: option, value, what is allowed. All
// of them end with exit code 2.
#include <fmt/format.h>

#include "tests/unit/agent_options_fixture.h"

namespace sidetrack::agent::testing {
namespace {

using ::testing::HasSubstr;

void refuses(const Result<Options>& options, const std::string& text) {
  ASSERT_FALSE(options) << text;
  EXPECT_EQ(options.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(options.error().message, HasSubstr(text));
}

TEST_F(OptionsTest, refuse_what_is_no_command) {
  refuses(parse({"start"}),
          "'start' is no command: run, uninstall, leave, self-test, --help, --version");
}

TEST_F(OptionsTest, need_a_command) {
  refuses(parse({}), "a command is missing: run, uninstall, leave, self-test, --help, --version");
}

TEST_F(OptionsTest, need_objects) {
  refuses(parse({"run"}), "--objects DIR names a folder of them, --kubeconfig FILE an API server");
  refuses(parse({"run", "--source", "files"}), "--objects DIR is missing");
}

TEST_F(OptionsTest, refuse_a_folder_of_objects_beside_the_api) {
  refuses(run_with({"--source", "kubernetes"}), "--objects '/o': only source files reads a folder");
}

TEST_F(OptionsTest, refuse_another_word_for_the_fast_path) {
  refuses(run_with({"--fast-path", "on"}), "--fast-path 'on': auto, uncharged or off is meant");
}

TEST_F(OptionsTest, refuse_other_values_of_the_fast_path) {
  const auto refuse_all = [](const std::string& option, const std::vector<const char*>& values,
                             const std::string& allowed) {
    for (const char* value : values) {
      refuses(run_with({option, value}), option + " '" + value + "': " + allowed);
    }
  };
  refuse_all("--fast-path-window", {"15KiB", "65MiB", "0KiB", "1048576", "1GiB", "big"},
             "a size such as 512KiB or 1MiB is meant, 16KiB to 64MiB");
  refuse_all("--fast-path-round-trips", {"0", "1001", "-1"}, "1 to 1000 is meant");
  refuses(run_with({"--fast-path-round-trips", "few"}), "fast-path-round-trips");
  refuse_all("--fast-path-probation", {"30", "1h", "-1s", "soon"},
             "a time such as 30s or 2m is meant");
  refuse_all("--fast-path-loopback", {"auto", "yes"}, "on or off is meant");
  refuse_all("--fast-path-sentinel", {"on", "kprobe"}, "auto, fentry, tracepoint or off is meant");
}

TEST_F(OptionsTest, refuse_a_node_without_a_name) {
  refuses(run_with({"--node", ""}), "--node '': the name of this node is meant");
}

TEST_F(OptionsTest, refuse_another_answer_for_when_the_agent_is_down) {
  refuses(run_with({"--cni-on-agent-down", "wait"}),
          "--cni-on-agent-down 'wait': allow or deny is meant");
}

TEST_F(OptionsTest, refuse_to_deny_for_a_time_that_a_restart_takes_or_that_has_no_unit) {
  for (const char* value : {"59s", "1s", "0", "3600", "8761h", "-1s", "1d", "500ms", "for ever"}) {
    refuses(run_with({"--cni-deny-for", value}),
            std::string("--cni-deny-for '") + value +
                "': a time such as 10m or 1h is meant, 1m to 8760h, or 0s: for ever");
  }
}

TEST_F(OptionsTest, refuse_what_the_plugin_would_refuse) {
  const auto refuses_time = [](const char* value) {
    refuses(run_with({"--cni-timeout", value}),
            std::string("--cni-timeout '") + value + "': a time such as 500ms or 5s is meant");
  };
  refuses_time("49ms");
  refuses_time("61s");
  refuses_time("2");
  refuses(run_with({"--cni-log-file", "cni.log"}),
          "--cni-log-file 'cni.log': an absolute path or off is meant");
  refuses(run_with({"--cni-log-file="}), "--cni-log-file");
  refuses(run_with({"--cni-status-checks-agent", "true"}),
          "--cni-status-checks-agent 'true': on or off is meant");
}

TEST_F(OptionsTest, refuse_folders_that_the_plugin_would_not_find) {
  for (const char* option : {"--state-dir", "--cache-dir"}) {
    refuses(parse({"run", "--kubeconfig", "/k", option, "here"}),
            std::string(option) + " 'here': an absolute path is meant");
    EXPECT_TRUE(run_with({option, "here"})) << "no plugin with source files";
  }
}

TEST_F(OptionsTest, refuse_a_folder_as_configuration) {
  refuses(run_with({"--config", "/tmp"}), "--config '/tmp': a file that can be read is meant");
}

TEST_F(OptionsTest, refuse_a_source_that_there_is_not) {
  refuses(run_with({"--source", "consul"}), "--source 'consul': files or kubernetes is meant");
}

TEST_F(OptionsTest, refuse_an_option_that_there_is_not) {
  refuses(run_with({"--objectz", "/o"}), "objectz");
}

TEST_F(OptionsTest, refuse_an_option_of_the_other_command) {
  refuses(run_with({"--drain", "5s"}), "drain");
  refuses(parse({"uninstall", "--objects", "/o"}), "objects");
}

TEST_F(OptionsTest, refuse_a_pin_folder_that_is_relative_or_not_our_own) {
  refuses(run_with({"--pin-dir", "bpf/sidetrack"}),
          "--pin-dir 'bpf/sidetrack': an absolute path is meant, such as /sys/fs/bpf/sidetrack");
  refuses(parse({"uninstall", "--pin-dir", "sidetrack"}), "an absolute path is meant");
  for (const char* path :
       {"/", "/pins", "/pins/", "/sys/fs/bpf", "/sys/fs/bpf/", "/sys/fs/bpf/x/.."}) {
    refuses(run_with({"--pin-dir", path}), "a folder of Sidetrack's own is meant");
  }
}

TEST_F(OptionsTest, refuse_half_an_option) {
  refuses(run_with({"--state", "/s"}), "state");
}

TEST_F(OptionsTest, refuse_words_that_belong_to_no_option) {
  refuses(run_with({"more"}), "'more' belongs to no option (sidetrack-agent --help");
  refuses(parse({"uninstall", "/sys/fs/bpf/x", "now"}), "'/sys/fs/bpf/x' belongs to no option");
}

TEST_F(OptionsTest, refuse_the_same_option_twice) {
  refuses(run_with({"--objects", "/p"}), "objects");
}

TEST_F(OptionsTest, refuse_an_engine_that_there_is_not) {
  refuses(run_with({"--engine", "envoy"}),
          "--engine 'envoy': embedded, external=ADDR:PORT[,ADDR:PORT] or none is meant");
}

TEST_F(OptionsTest, refuse_an_external_engine_without_an_address) {
  refuses(run_with({"--engine", "external="}), "--engine 'external=': ");
}

TEST_F(OptionsTest, refuse_an_external_engine_without_a_port) {
  refuses(run_with({"--engine", "external=10.1.2.3"}), "ADDRESS:PORT is meant");
}

TEST_F(OptionsTest, refuse_an_external_engine_whose_ipv6_address_has_no_brackets) {
  refuses(run_with({"--engine", "external=fd00::1:15001"}),
          "an IPv6 address needs brackets: [fd00::1]:15001");
}

TEST_F(OptionsTest, refuse_an_external_engine_on_port_0) {
  refuses(run_with({"--engine", "external=10.1.2.3:0"}), "the port must be 1 to 65535");
}

TEST_F(OptionsTest, refuse_two_external_addresses_of_a_family) {
  refuses(run_with({"--engine", "external=10.1.2.3:1,10.1.2.4:1"}),
          "one address per family at most");
}

TEST_F(OptionsTest, refuse_an_external_engine_at_what_is_no_address_of_the_node) {
  for (const char* address : {"127.0.0.1", "0.0.0.0", "[::1]", "[::]"}) {
    refuses(run_with({"--engine", fmt::format("external={}:15001", address)}),
            "pods cannot reach this address: use one of the node's own");
  }
}

TEST_F(OptionsTest, refuse_listener_ports_that_are_no_range) {
  refuses(run_with({"--listener-ports", "many"}),
          "--listener-ports 'many': one range LOW-HIGH of ports is meant");
  refuses(run_with({"--listener-ports", "1-5,8-9"}), "one range");
}

TEST_F(OptionsTest, refuse_fewer_ports_than_listeners) {
  refuses(run_with({"--listener-ports", "15900-15902"}), "fewer ports than --listeners-per-pod 4");
}

TEST_F(OptionsTest, refuse_a_number_of_listeners_that_a_row_does_not_hold) {
  refuses(run_with({"--listeners-per-pod", "0"}), "--listeners-per-pod '0': 1 to 8 is meant");
  refuses(run_with({"--listeners-per-pod", "9"}), "1 to 8 is meant");
  refuses(run_with({"--listeners-per-pod", "four"}), "listeners-per-pod");
}

TEST_F(OptionsTest, refuse_unknown_words) {
  refuses(run_with({"--compat", "istio,consul"}),
          "--compat 'istio,consul': a list of istio, linkerd, kuma is meant");
  refuses(run_with({"--log-level", "loud"}),
          "--log-level 'loud': error, warn, info or debug is meant");
  refuses(run_with({"--log-format", "xml"}), "--log-format 'xml': text or json is meant");
}

TEST_F(OptionsTest, refuse_a_time_without_a_number_or_with_another_unit) {
  for (const char* time : {"soon", "30h", "-1s", "5", "0", "", "100000000m"}) {
    refuses(parse({"uninstall", "--drain", time}),
            "--drain '" + std::string(time) + "': a time such as 30s or 2m is meant");
  }
}

TEST_F(OptionsTest, refuse_lists_that_do_not_parse_and_name_the_item) {
  refuses(run_with({"--exclude-outbound-ports", "80,90000"}), "90000");
  refuses(run_with({"--exclude-outbound-cidrs", "10.0.0.0/8,10.0.0.0/33"}), "10.0.0.0/33");
  refuses(run_with({"--include-outbound-ports", "9-1"}), "9-1");
  refuses(run_with({"--include-outbound-cidrs", "here"}), "here");
}

TEST_F(OptionsTest, refuse_a_file_that_cannot_be_read) {
  refuses(run_with({"--config", "/nowhere"}),
          "--config '/nowhere': a file that can be read is meant");
}

TEST_F(OptionsTest, refuse_an_option_in_a_file_that_there_is_not) {
  refuses(run_with({"--config", config("objectz = /o\n")}), "objectz");
}

TEST_F(OptionsTest, refuse_bad_values_of_the_environment) {
  set("SIDETRACK_LISTENERS_PER_POD", "99");
  refuses(run_with(),
          "--listeners-per-pod '99': 1 to 8 is meant (--listeners-per-pod is set by "
          "SIDETRACK_LISTENERS_PER_POD)");
  set("SIDETRACK_LISTENERS_PER_POD", "four");
  refuses(run_with(), "(--listeners-per-pod is set by SIDETRACK_LISTENERS_PER_POD)");
  set("SIDETRACK_LISTENERS_PER_POD", "4");
  set("SIDETRACK_CONFIG", "/nowhere");
  refuses(run_with(), "(--config is set by SIDETRACK_CONFIG)");
}

TEST_F(OptionsTest, of_the_command_line_are_not_blamed_on_the_environment) {
  set("SIDETRACK_LOG_LEVEL", "info");
  const auto options = run_with({"--log-level", "loud"});
  ASSERT_FALSE(options);
  EXPECT_EQ(options.error().message, "--log-level 'loud': error, warn, info or debug is meant");
}

TEST_F(OptionsTest, of_a_file_are_named_with_it) {
  const std::string file = config("log-level = loud\n");
  refuses(run_with({"--config", file}), "(--log-level is set by --config " + file + ":1)");
}

TEST_F(OptionsTest, name_the_line_of_a_file_that_is_wrong) {
  const auto says = [this](const std::string& text, const std::string& words) {
    const std::string file = config("# ours\n" + text);
    refuses(run_with({"--config", file}), "--config " + file + words);
  };
  says("objectz = /o\n", ":2: unrecognised option 'objectz'");
  says("\nlog-level info\n", ":3: the options configuration file contains an invalid line");
  says("log-level = info\nlog-level = warn\n", ":3: option 'log-level' again, after ");
  says("[agent]\nlog-level = info\n", ":2: the file has no sections");
  says("\n\nlog-level = loud\n", ":4)");
  says("log-level = loud # agent.logLevel \r\n", ":2 # agent.logLevel)");
  says("listeners-per-pod = 99 # agent.listenersPerPod\n", ":2 # agent.listenersPerPod)");
  says("listeners-per-pod = four # agent.listenersPerPod\n", ":2 # agent.listenersPerPod)");
}

TEST_F(OptionsTest, refuse_a_name_that_no_node_can_have) {
  EXPECT_TRUE(run_with({"--node", "ip-10-0-0-1.eu-1.compute.internal"}));
  for (const std::string& name :
       {std::string("BAD NODE"), std::string("Node"), std::string("a_b"), std::string("a/b"),
        std::string("-a"), std::string("a."), std::string(254, 'a')}) {
    refuses(run_with({"--node", name}), "--node '" + name + "': the name of this node is meant");
  }
  set("NODE_NAME", "My_Host");
  EXPECT_TRUE(run_with()) << "with files it may be the host's";
  refuses(parse({"run", "--kubeconfig", "/k"}), "--node 'My_Host': the name of this node");
}

TEST_F(OptionsTest, refuse_with_files_what_only_the_api_has_a_use_for) {
  refuses(run_with({"--daemonset", "sidetrack"}),
          "--daemonset 'sidetrack': only source kubernetes has a use for it");
  refuses(run_with({"--cni-conf-dir", "/etc/cni/net.d"}), "--cni-conf-dir '/etc/cni/net.d': only");
  refuses(run_with({"--kubeconfig", "/k"}), "--kubeconfig '/k': only");
  EXPECT_TRUE(parse({"uninstall", "--cni-conf-dir", "/etc/cni/net.d"}));
}

}  // namespace
}  // namespace sidetrack::agent::testing
