// SPDX-License-Identifier: Apache-2.0
// An agent that is told something wrong says what and changes nothing.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

constexpr const char* kExternal = "external=10.244.0.1:15001";

class AgentStart : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      make_sidetrack();
    }
  }
  static void replace(ProcessSpec& spec, const std::string& option, const std::string& value) {
    auto& words = spec.arguments;
    const auto found = std::find(words.begin(), words.end(), option);
    if (found == words.end()) {
      words.insert(words.end(), {option, value});
    } else {
      *std::next(found) = value;
    }
  }
  // The agent's command with `option` set to `value`.
  ProcessSpec with(const std::string& option, const std::string& value) const {
    ProcessSpec spec = sidetrack_->agent_spec();
    replace(spec, option, value);
    return spec;
  }
  // It ends with `status`, says all of `words`, and pins nothing.
  void expect_refusal(const ProcessSpec& spec, int status, const std::vector<std::string>& words) {
    ST_ASSERT_VALUE(auto agent, Process::start(spec));
    ST_ASSERT_VALUE(const int ended, agent->wait());
    EXPECT_EQ(ended, status) << agent->output();
    for (const std::string& word : words) {
      EXPECT_NE(agent->output().find(word), std::string::npos) << word << "\n" << agent->output();
    }
    EXPECT_FALSE(std::filesystem::exists(sidetrack_->pin_dir() + "/v1/links/st_connect4"));
  }
};

// A container without --cgroup. Its root of cgroup2 is the agent's own cgroup, and nothing else of
// cgroup2 is mounted: not even an agent that checked nothing could attach outside the test's.
class AgentInContainer : public AgentStart {
 protected:
  // It has a /proc of its own, too. Without `host_pid` the container's first process is the first
  // of all there; with it that is one outside of the container, as with Kubernetes' hostPID.
  [[nodiscard]] ProcessSpec in_container(bool host_pid) const {
    ProcessSpec spec = sidetrack_->agent_spec();
    auto& words = spec.arguments;
    for (const char* option : {"--cgroup", "--engine-cgroup"}) {
      const auto found = std::find(words.begin(), words.end(), option);
      words.erase(found, found + 2);
    }
    std::vector<std::string> launcher{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"};
    if (host_pid) {
      launcher.insert(launcher.end(), {"sh", "-c", "\"$@\"; exit $?", "host"});
    }
    launcher.insert(launcher.end(),
                    {"unshare", "--cgroup", "--mount", "sh", "-ec",
                     "for point in $(awk '/ - cgroup2 / { print $5 }' /proc/self/mountinfo); do\n"
                     "  umount -l $point\n"
                     "done\n"
                     "mount -t cgroup2 none $0\n"
                     "exec \"$@\"",
                     root_.path().string()});
    words.insert(words.begin(), launcher.begin(), launcher.end());
    return spec;
  }
  TempDir root_ = std::move(TempDir::create("root").value());
};

TEST_F(AgentInContainer, does_not_take_the_containers_cgroup_for_the_root) {
  expect_refusal(in_container(false), 2,
                 {root_.path().string() + " is not the root of cgroup2",
                  "Mount the host's cgroup2 into this container", "hostPID"});
}

// With the host's first process in sight it sees the cgroups as the host does; so it knows the
// folder's name there.
TEST_F(AgentInContainer, joins_the_hosts_cgroup_namespace) {
  const std::string agent = std::filesystem::path(cgroup_->path()).filename().string() + "/agent";
  expect_refusal(in_container(true), 2,
                 {root_.path().string() + " shows only the part ", agent + " of cgroup2",
                  "mount the host's whole cgroup2"});
}

TEST_F(AgentStart, refuses_a_cgroup_that_is_none) {
  expect_refusal(with("--cgroup", folder_->path().string()), 2,
                 {folder_->path().string(), "cgroup2"});
}

TEST_F(AgentStart, refuses_folders_that_are_not_there_and_names_the_option) {
  for (const char* option : {"--cgroup", "--engine-cgroup"}) {
    expect_refusal(with(option, "/nope"), 2, {option, "/nope", "No such file or directory"});
  }
  const std::string state = folder_->file("new/state");
  ProcessSpec spec = with("--state-dir", state);
  replace(spec, "--cgroup", "/nope");
  expect_refusal(spec, 2, {"--cgroup", "/nope"});
  EXPECT_FALSE(std::filesystem::exists(folder_->file("new")));
}

TEST_F(AgentStart, refuses_a_state_folder_that_cannot_be) {
  expect_refusal(with("--state-dir", "/proc/nope"), 2, {"--state-dir /proc/nope"});
  expect_refusal(with("--state-dir", "/proc"), 2, {"--state-dir /proc"});
  expect_refusal(with("--state-dir", "/dev/null"), 2, {"--state-dir /dev/null"});
}

TEST_F(AgentStart, takes_back_the_engines_cgroup_that_it_made_when_it_refuses) {
  const std::string engine = cgroup_->path() + "/sidetrack-engine";
  ProcessSpec spec = with("--pin-dir", folder_->file("pins"));
  auto& words = spec.arguments;
  const auto found = std::find(words.begin(), words.end(), "--engine-cgroup");
  words.erase(found, std::next(found, 2));
  expect_refusal(spec, 2, {"bpf file system"});
  EXPECT_FALSE(std::filesystem::exists(engine));
}

TEST_F(AgentStart, refuses_a_cgroup_that_another_sidetrack_has) {
  ST_ASSERT_OK(sidetrack_->start_agent());
  const std::string state = folder_->file("second");
  const std::string pins = sidetrack_->pin_dir() + "-second";
  ProcessSpec second = with("--state-dir", state);
  replace(second, "--pin-dir", pins);
  const auto refused = [&](const std::string& how) {
    ST_ASSERT_VALUE(auto agent, Process::start(second));
    ST_ASSERT_VALUE(const int status, agent->wait());
    EXPECT_EQ(status, 2) << agent->output();
    for (const std::string& word :
         {std::string("another Sidetrack"), cgroup_->path(), "pinned at " + sidetrack_->pin_dir(),
          how, "sidetrack-agent uninstall --pin-dir " + sidetrack_->pin_dir()}) {
      EXPECT_NE(agent->output().find(word), std::string::npos) << word << "\n" << agent->output();
    }
    EXPECT_FALSE(std::filesystem::exists(pins));
    EXPECT_FALSE(std::filesystem::exists(state));
  };
  refused("its agent runs");
  ST_ASSERT_VALUE(const int status, sidetrack_->agent().terminate());
  EXPECT_EQ(status, 0);
  refused("no agent runs");
  ST_ASSERT_OK(sidetrack_->uninstall());
  // At once: the kernel may still be about to detach.
  ST_ASSERT_VALUE(auto agent, Process::start(second));
  EXPECT_TRUE(eventually(kPatience, [&] { return std::filesystem::exists(state + "/admin.sock"); }))
      << agent->output();
  ST_ASSERT_VALUE(const int ended, agent->terminate());
  EXPECT_EQ(ended, 0);
  ST_ASSERT_OK(run_command({.arguments = {built_program("sidetrack-agent"), "uninstall",
                                          "--state-dir", state, "--pin-dir", pins}}));
}

TEST_F(AgentStart, refuses_a_cgroup_below_or_above_another_sidetracks) {
  ST_ASSERT_VALUE(const std::string below, cgroup_->child("below"));
  const std::string second_pins = sidetrack_->pin_dir() + "-second";
  const auto second_on = [&](const std::string& cgroup) {
    ProcessSpec spec = with("--cgroup", cgroup);
    replace(spec, "--engine", "none");
    replace(spec, "--state-dir", folder_->file("second"));
    replace(spec, "--pin-dir", second_pins);
    replace(spec, "--http", "off");
    return spec;
  };
  const auto uninstall_second = [&] {
    return run_command({.arguments = {built_program("sidetrack-agent"), "uninstall", "--state-dir",
                                      folder_->file("second"), "--pin-dir", second_pins}});
  };
  const auto expect_second_refused = [&](const std::string& cgroup,
                                         const std::vector<std::string>& words) {
    ST_ASSERT_VALUE(auto agent, Process::start(second_on(cgroup)));
    ST_ASSERT_VALUE(const int status, agent->wait());
    EXPECT_EQ(status, 2) << agent->output();
    for (const std::string& word : words) {
      EXPECT_NE(agent->output().find(word), std::string::npos) << word << "\n" << agent->output();
    }
    EXPECT_FALSE(std::filesystem::exists(second_pins));
  };

  ST_ASSERT_OK(sidetrack_->start_agent());
  expect_second_refused(below, {cgroup_->path() + ", above our " + below, "its agent runs",
                                "sidetrack-agent uninstall --pin-dir " + sidetrack_->pin_dir(),
                                "or give the two a --cgroup of which neither holds the other"});
  ST_ASSERT_VALUE(const int ended, sidetrack_->agent().terminate());
  EXPECT_EQ(ended, 0);
  ST_ASSERT_OK(sidetrack_->uninstall());

  ST_ASSERT_VALUE(auto second, Process::start(second_on(below)));
  const std::string socket = folder_->file("second") + "/admin.sock";
  ASSERT_TRUE(eventually(kPatience, [&] { return std::filesystem::exists(socket); }))
      << second->output();
  expect_refusal(sidetrack_->agent_spec(), 2,
                 {below + ", below our " + cgroup_->path(), "pinned at " + second_pins});
  ST_ASSERT_OK(second->terminate());
  ST_ASSERT_OK(uninstall_second());
}

TEST_F(AgentStart, its_self_test_is_no_unknown_namespace) {
  make_sidetrack({.fast_path = true});
  const auto started = sidetrack_->start_agent();
  if (!started && started.error().code == ErrorCode::kUnsupported) {
    GTEST_SKIP() << "no fast path on this kernel: " << started.error().message;
  }
  ST_ASSERT_OK(started);
  ST_ASSERT_VALUE(Counts counts, kernel().counted(0));
  EXPECT_GT(counts["not_enrolled"], 0U) << "the self-test has connected";
  EXPECT_EQ(counts["unknown_netns"], 0U);
  EXPECT_EQ(sidetrack_->agent().output().find("event=demoted"), std::string::npos)
      << sidetrack_->agent().output();
  EXPECT_EQ(sidetrack_->agent().output().find("unknown_netns"), std::string::npos)
      << sidetrack_->agent().output();
  // Its row has gone with it, and was nobody's to repair.
  ASSERT_TRUE(eventually(kPatience, [&] { return kernel().pod(cookie_).has_value(); }));
  ST_ASSERT_VALUE(const auto rows, sidetrack_->dump_map("st_pods"));
  EXPECT_EQ(rows.size(), 2U) << "the node's and web's: " << rows;
  ST_ASSERT_VALUE(const auto status, sidetrack_->get("/v1/status"));
  EXPECT_EQ(status.value("repairs", -1), 0);
}

TEST_F(AgentStart, refuses_the_engines_cgroup_where_every_pod_is) {
  expect_refusal(with("--engine-cgroup", cgroup_->path()), 2, {cgroup_->path(), "--engine-cgroup"});
}

TEST_F(AgentStart, refuses_an_engine_cgroup_above_the_programs) {
  const std::string parent = std::filesystem::path(cgroup_->path()).parent_path().string();
  expect_refusal(with("--engine-cgroup", parent), 2, {parent, "--engine-cgroup"});
}

TEST_F(AgentStart, refuses_an_engine_cgroup_beside_the_programs) {
  ST_ASSERT_VALUE(const TestCgroup other, TestCgroup::create("beside"));
  expect_refusal(with("--engine-cgroup", other.path()), 2, {other.path(), "not below"});
}

TEST_F(AgentStart, refuses_an_engine_cgroup_that_holds_others_and_names_them) {
  ST_ASSERT_VALUE(auto other, Process::start({.arguments = {"sleep", "600"},
                                              .cgroup_path = sidetrack_->engine_cgroup()}));
  expect_refusal(sidetrack_->agent_spec(), 2,
                 {sidetrack_->engine_cgroup(), std::to_string(other->pid()), "sleep"});
}

TEST_F(AgentStart, refuses_an_engine_cgroup_above_a_pod_and_names_the_pod) {
  // As a kubelet makes them; the pod has no process yet.
  const std::string pod = "burstable/pod0c1d7a2e-5b0f-4b5e-9a64-7d1f0e3c2b1a";
  ST_ASSERT_OK(cgroup_->child("engine/burstable"));
  ST_ASSERT_OK(cgroup_->child("engine/" + pod));
  for (const char* engine : {"embedded", kExternal}) {
    expect_refusal(with("--engine", engine), 2,
                   {"--engine-cgroup " + sidetrack_->engine_cgroup(), "above pods", pod});
  }
}

TEST_F(AgentStart, refuses_an_engine_cgroup_with_others_below_and_names_them) {
  ST_ASSERT_VALUE(const std::string below, cgroup_->child("engine/below"));
  ST_ASSERT_VALUE(auto other,
                  Process::start({.arguments = {"sleep", "600"}, .cgroup_path = below}));
  const std::string name = fmt::format("{} (sleep", other->pid());
  expect_refusal(sidetrack_->agent_spec(), 2, {sidetrack_->engine_cgroup(), name + ")"});
  // The agent is in the lab's node, `other` is not.
  expect_refusal(with("--engine", kExternal), 2,
                 {sidetrack_->engine_cgroup(), name + ", in another network namespace)"});
}

TEST_F(AgentStart, an_external_engine_may_have_programs_below_its_cgroup_and_no_agent) {
  ST_ASSERT_VALUE(const std::string below, cgroup_->child("engine/below"));
  ST_ASSERT_VALUE(auto proxy, Process::start({.arguments = {"sleep", "600"},
                                              .netns_path = lab_->node().path(),
                                              .cgroup_path = below}));
  ProcessSpec spec = with("--engine", kExternal);
  replace(spec, "--pin-dir", folder_->file("pins"));  // looked at after the cgroups
  expect_refusal(spec, 2, {"bpf file system"});
  spec.cgroup_path = below;
  expect_refusal(spec, 2, {sidetrack_->engine_cgroup(), "sidetrack-agent, this agent"});
}

TEST_F(AgentStart, refuses_a_pin_folder_that_is_not_on_a_bpf_file_system) {
  const std::string pins = folder_->file("pins");
  expect_refusal(with("--pin-dir", pins), 2, {pins, "bpf file system"});
  EXPECT_FALSE(std::filesystem::exists(pins));
}

TEST_F(AgentStart, refuses_to_run_without_an_objects_folder) {
  ProcessSpec spec = sidetrack_->agent_spec();
  auto& words = spec.arguments;
  const auto found = std::find(words.begin(), words.end(), "--objects");
  words.erase(found, std::next(found, 2));
  expect_refusal(spec, 2, {"--objects"});
}

TEST_F(AgentStart, refuses_an_objects_folder_that_is_none) {
  expect_refusal(with("--objects", "/nope"), 2, {"--objects", "/nope"});
}

TEST_F(AgentStart, refuses_an_http_address_that_is_none) {
  for (const char* address : {"foo", "127.0.0.1:99999", "15880"}) {
    expect_refusal(with("--http", address), 2, {"--http", address, "off"});
  }
}

TEST_F(AgentStart, refuses_an_http_address_of_another_node) {
  expect_refusal(with("--http", "192.0.2.1:15880"), 2, {"--http", "192.0.2.1:15880"});
}

TEST_F(AgentStart, what_the_control_program_cannot_write_it_does_not_call_done) {
  ST_ASSERT_VALUE(const auto result,
                  run_command({.arguments = {"sh", "-c", "exec \"$0\" --help >/dev/full",
                                             built_program("sidetrackctl")}}));
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_NE(result.output.find("could not be written"), std::string::npos) << result.output;
}

TEST_F(AgentStart, says_what_it_needs_when_it_is_not_privileged) {
  ProcessSpec spec = sidetrack_->agent_spec();
  spec.arguments.insert(spec.arguments.begin(), {"setpriv", "--bounding-set=-all"});
  expect_refusal(spec, 1, {"CAP_BPF"});
}

// Its BTF is hidden. (Where libbpf looks next, only debug packages put something.)
TEST_F(AgentStart, says_what_this_kernel_lacks_and_leaves_nothing) {
  ProcessSpec spec = sidetrack_->agent_spec();
  spec.arguments.insert(spec.arguments.begin(),
                        {"unshare", "--mount", "sh", "-ec",
                         "mount --bind /dev/null /sys/kernel/btf/vmlinux; exec \"$@\"", "sh"});
  expect_refusal(spec, 3, {"BTF", "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"});
  EXPECT_FALSE(std::filesystem::exists(sidetrack_->pin_dir()));
  ST_ASSERT_VALUE(const auto attached,
                  run_command({.arguments = {"bpftool", "cgroup", "show", cgroup_->path()}}));
  EXPECT_EQ(attached.exit_status, 0) << attached.output;
  EXPECT_EQ(attached.output, "");
}

TEST_F(AgentStart, tells_a_user_who_is_not_root_what_to_do_and_leaves_nothing) {
  ST_ASSERT_OK(sidetrack_->start_agent());
  // A folder that everybody may use, with programs that everybody may run.
  ST_ASSERT_VALUE(const TempDir open, TempDir::create("nobody"));
  std::filesystem::permissions(open.path(), std::filesystem::perms::all);
  for (const char* program : {"sidetrack-agent", "sidetrackctl"}) {
    std::filesystem::copy_file(built_program(program), open.file(program));
  }
  const std::string agent = open.file("sidetrack-agent");
  const std::string state = open.file("state");
  const auto as_nobody = [](std::vector<std::string> words) {
    words.insert(words.begin(), {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                 "--inh-caps=-all", "--"});
    return run_command({.arguments = words});
  };
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{agent, "run", "--objects", open.path().string(), "--state-dir",
                                 state, "--cgroup", cgroup_->path()},
        {agent, "uninstall", "--state-dir", state, "--pin-dir", sidetrack_->pin_dir()},
        {agent, "uninstall", "--state-dir", sidetrack_->state_dir()},
        {agent, "self-test", "--cgroup", cgroup_->path()}}) {
    ST_ASSERT_VALUE(const auto done, as_nobody(words));
    EXPECT_EQ(done.exit_status, 1) << words[1] << ": " << done.output;
    EXPECT_NE(done.output.find("run it as root, not as user 65534"), std::string::npos)
        << words[1] << ": " << done.output;
    EXPECT_NE(done.output.find("CAP_SYS_ADMIN"), std::string::npos) << done.output;
    EXPECT_FALSE(std::filesystem::exists(state)) << words[1];
  }
  ST_ASSERT_VALUE(const auto status, as_nobody({open.file("sidetrackctl"), "--state-dir",
                                                sidetrack_->state_dir(), "status"}));
  EXPECT_EQ(status.exit_status, 3);
  EXPECT_NE(status.output.find("run this with sudo"), std::string::npos) << status.output;
}

}  // namespace
}  // namespace sidetrack::lab
