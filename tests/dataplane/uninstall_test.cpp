// SPDX-License-Identifier: Apache-2.0
// `sidetrack-agent uninstall` takes back what the agent made, and only that, without cutting
// anything.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include <nlohmann/json.hpp>

#include "sidetrack/cgroup/process_cgroup.h"
#include "sidetrack/unique_fd.h"
#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

// A terminal that is gone: a program writes each line to it at once, and none can be written.
// Programs that are started inherit it.
UniqueFd lost_terminal() {
  const UniqueFd other_end(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  EXPECT_EQ(::unlockpt(other_end.get()), 0);
  return UniqueFd(::ioctl(other_end.get(), TIOCGPTPEER, O_WRONLY | O_NOCTTY));
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Uninstall : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    start_echo();
    links_before_ = own_links();
    start_sidetrack();
  }
  [[nodiscard]] std::vector<std::string> command(const std::string& drain) const {
    return {built_program("sidetrack-agent"),
            "uninstall",
            "--state-dir",
            sidetrack_->state_dir(),
            "--cache-dir",
            sidetrack_->cache_dir(),
            "--pin-dir",
            sidetrack_->pin_dir(),
            "--cgroup",
            cgroup_->path(),
            "--drain",
            drain};
  }
  // Ids of the links on this test's cgroups.
  [[nodiscard]] std::set<std::uint64_t> own_links() const {
    std::set<std::uint64_t> cgroups{cgroup_->id()};
    if (sidetrack_) {
      cgroups.insert(cgroup_id(sidetrack_->engine_cgroup()).value());
    }
    const auto shown = run_command({.arguments = {"bpftool", "-j", "link", "show"}});
    std::set<std::uint64_t> ids;
    const json links = json::parse(shown ? shown->standard_output : "", nullptr, false);
    EXPECT_TRUE(links.is_array());
    for (const json& link : links.is_array() ? links : json::array()) {
      if (cgroups.contains(link.value("cgroup_id", std::uint64_t{0}))) {
        ids.insert(link.value("id", std::uint64_t{0}));
      }
    }
    return ids;
  }
  void stop_agent() {
    ST_ASSERT_VALUE(const int status, sidetrack_->agent().terminate());
    EXPECT_EQ(status, 0);
  }
  int open_stream() {
    const auto socket = shell_->connect(api_v4_, kEcho);
    EXPECT_TRUE(socket.has_value() && socket->error_number == 0) << sidetrack_->logs();
    return socket ? socket->id : 0;
  }
  void expect_nothing_left() {
    EXPECT_FALSE(std::filesystem::exists(sidetrack_->pin_dir()));
    EXPECT_FALSE(std::filesystem::exists(sidetrack_->state_dir() + "/admin.sock"));
    EXPECT_FALSE(std::filesystem::exists(sidetrack_->state_dir() + "/engine.sock"));
    EXPECT_FALSE(std::filesystem::exists(sidetrack_->state_dir() + "/agent.lock"));
    // The kernel frees a link after a grace period.
    EXPECT_TRUE(eventually(kPatience, [&] { return own_links() == links_before_; }));
  }
  void expect_direct_connections() {
    ST_ASSERT_VALUE(const auto burst, shell_->burst(api_v4_, kEcho, {.count = 20}));
    expect_clean(burst, 20, sidetrack_->logs());
  }
  [[nodiscard]] std::string made_cgroup() const { return cgroup_->path() + "/sidetrack-engine"; }
  // Instead of what runs, an agent that makes the engine's cgroup itself.
  void start_agent_that_makes_the_cgroup() {
    ASSERT_NO_FATAL_FAILURE(stop_agent());
    ST_ASSERT_OK(sidetrack_->uninstall());
    sidetrack_->engine().kill_hard();
    ProcessSpec spec = sidetrack_->agent_spec();
    auto& words = spec.arguments;
    const auto found = std::find(words.begin(), words.end(), "--engine-cgroup");
    words.erase(found, std::next(found, 2));
    ST_ASSERT_VALUE(own_agent_, Process::start(spec));
    ASSERT_TRUE(eventually(kPatience, [&] { return sidetrack_->get("/v1/status").has_value(); }))
        << own_agent_->output();
  }
  std::set<std::uint64_t> links_before_;
  std::unique_ptr<Process> own_agent_;
};

TEST_F(Uninstall, is_refused_while_an_agent_runs) {
  ST_ASSERT_VALUE(const auto done, run_command({.arguments = command("0s")}));
  EXPECT_EQ(done.exit_status, 1) << done.output;
  EXPECT_NE(done.output.find(std::to_string(sidetrack_->agent().pid())), std::string::npos)
      << done.output;
  expect_connections(5, "redirected");
}

TEST_F(Uninstall, takes_everything_away_and_says_what) {
  EXPECT_GE(own_links().size(), links_before_.size() + 9);
  expect_connections(5, "redirected");
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  // What source kubernetes and the plugin keep over a reboot.
  std::filesystem::create_directories(sidetrack_->cache_dir() + "/kubernetes");
  std::ofstream(sidetrack_->cache_dir() + "/kubernetes/pods") << "x";
  std::ofstream(sidetrack_->cache_dir() + "/enrolled-namespaces") << "shop\n";
  std::ofstream(sidetrack_->cache_dir() + "/fast-path-workloads.json") << "{}\n";
  std::ofstream(sidetrack_->cache_dir() + "/cni.log") << "a pod started\n";
  ST_ASSERT_VALUE(const auto done, run_command({.arguments = command("10s")}));
  EXPECT_EQ(done.exit_status, 0) << done.output;
  EXPECT_FALSE(std::filesystem::exists(sidetrack_->cache_dir()));
  for (const char* name : {"/links/st_connect4", "/maps/st_pods", "/agent.lock"}) {
    EXPECT_NE(done.output.find(name), std::string::npos) << name << "\n" << done.output;
  }
  EXPECT_EQ(done.output.find("still open"), std::string::npos) << done.output;
  expect_nothing_left();
  expect_direct_connections();
}

// The first line is what a program notices at once: later ones fit into its buffer.
TEST_F(Uninstall, takes_everything_away_when_it_cannot_say_what) {
  ASSERT_NO_FATAL_FAILURE(start_agent_that_makes_the_cgroup());
  ProcessSpec spec = sidetrack_->engine_spec();
  spec.cgroup_path = made_cgroup();
  ST_ASSERT_VALUE(const auto engine, Process::start(spec));
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  expect_connections(1, "redirected");
  const int stream = open_stream();
  ST_ASSERT_OK(own_agent_->terminate());
  const UniqueFd terminal = lost_terminal();
  ASSERT_TRUE(terminal.valid());
  std::vector<std::string> arguments = command("0s");
  arguments.insert(arguments.begin(),
                   {"bash", "-c", fmt::format("exec \"$@\" >&{}", terminal.get()), "bash"});
  for (const char* first_line : {"still open", "kept"}) {
    ST_ASSERT_VALUE(const auto done, run_command({.arguments = arguments}));
    EXPECT_EQ(done.exit_status, 1) << first_line;
    EXPECT_EQ(done.output, "sidetrack-agent: the output could not be written\n") << first_line;
    expect_nothing_left();
    EXPECT_TRUE(std::filesystem::exists(made_cgroup()));
  }
  expect_alive(*shell_, stream, 100'000);
  expect_direct_connections();
}

TEST_F(Uninstall, waits_for_open_connections_and_sends_new_ones_direct) {
  const int stream = open_stream();
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  ST_ASSERT_VALUE(auto running, Process::start({.arguments = command("60s")}));
  const auto disabled = [&] {
    const auto pod = kernel().pod(cookie_);
    return pod && pod->mode == ST_MODE_DISABLED;
  };
  ASSERT_TRUE(eventually(kPatience, disabled)) << running->output();
  expect_connections(10, "not_enrolled");
  expect_alive(*shell_, stream, 100'000);
  EXPECT_TRUE(running->running()) << running->output();
  ST_ASSERT_OK(shell_->close(stream));
  ST_ASSERT_VALUE(const int status, running->wait());
  EXPECT_EQ(status, 0) << running->output();
  EXPECT_EQ(running->output().find("still open"), std::string::npos) << running->output();
  expect_nothing_left();
}

TEST_F(Uninstall, cuts_nothing_that_outlasts_the_drain) {
  const int stream = open_stream();
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  ST_ASSERT_VALUE(const auto done, run_command({.arguments = command("0s")}));
  EXPECT_EQ(done.exit_status, 0) << done.output;
  EXPECT_NE(done.output.find("1 redirected connections were still open"), std::string::npos)
      << done.output;
  expect_nothing_left();
  expect_alive(*shell_, stream, 100'000);
  expect_direct_connections();
}

TEST_F(Uninstall, touches_no_cgroup_but_its_own) {
  ST_ASSERT_VALUE(const std::string root, cgroup::find_hierarchy());
  const std::string made = root + "/sidetrack-engine";
  const bool was_there = std::filesystem::exists(made);
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  std::vector<std::string> arguments = command("0s");
  std::erase(arguments, "--cgroup");
  std::erase(arguments, cgroup_->path());
  ST_ASSERT_VALUE(const auto done, run_command({.arguments = arguments}));
  EXPECT_EQ(done.exit_status, 0) << done.output;
  EXPECT_EQ(std::filesystem::exists(made), was_there);
  EXPECT_TRUE(std::filesystem::exists(sidetrack_->engine_cgroup()));
  expect_nothing_left();
}

TEST_F(Uninstall, removes_what_an_earlier_one_had_to_keep) {
  ASSERT_NO_FATAL_FAILURE(start_agent_that_makes_the_cgroup());
  ST_ASSERT_OK(own_agent_->terminate());
  const std::string made = made_cgroup();
  ST_ASSERT_VALUE(auto engine,
                  Process::start({.arguments = {"sleep", "600"}, .cgroup_path = made}));
  for (int i = 0; i < 2; ++i) {
    ST_ASSERT_VALUE(const auto kept, run_command({.arguments = command("0s")}));
    EXPECT_EQ(kept.exit_status, 0) << kept.output;
    EXPECT_NE(kept.output.find("kept " + made), std::string::npos) << kept.output;
    EXPECT_NE(kept.output.find("nothing but this cgroup"), std::string::npos) << kept.output;
  }
  engine->kill_hard();
  ST_ASSERT_VALUE(const auto done, run_command({.arguments = command("0s")}));
  EXPECT_NE(done.output.find("removed " + made), std::string::npos) << done.output;
  EXPECT_FALSE(std::filesystem::exists(made));
}

TEST_F(Uninstall, leaves_the_engines_cgroup_of_another_installation) {
  // Same cgroup, other pins: nothing of ours is there, and the folder is in use.
  ASSERT_NO_FATAL_FAILURE(start_agent_that_makes_the_cgroup());
  const std::string made = made_cgroup();
  ST_ASSERT_VALUE(
      const auto done,
      run_command({.arguments = {built_program("sidetrack-agent"), "uninstall", "--state-dir",
                                 folder_->file("other"), "--pin-dir",
                                 sidetrack_->pin_dir() + "-other", "--cgroup", cgroup_->path()}}));
  EXPECT_EQ(done.exit_status, 1) << done.output;
  EXPECT_TRUE(std::filesystem::exists(made)) << done.output;
  EXPECT_EQ(done.output.find("nothing of Sidetrack"), std::string::npos) << done.output;
  for (const std::string& word :
       {"on cgroup " + cgroup_->path(), std::string("another agent's"),
        "sidetrack-agent uninstall --pin-dir " + sidetrack_->pin_dir() + "\n"}) {
    EXPECT_NE(done.output.find(word), std::string::npos) << word << "\n" << done.output;
  }
  ST_ASSERT_OK(own_agent_->terminate());
  ST_ASSERT_VALUE(const auto own, run_command({.arguments = command("0s")}));
  EXPECT_NE(own.output.find("removed " + made), std::string::npos) << own.output;
}

TEST_F(Uninstall, names_another_installation_on_a_cgroup_below) {
  // Its own pins, the whole of cgroup2: what is attached to our cgroup is a part of that.
  ST_ASSERT_VALUE(const auto done,
                  run_command({.arguments = {built_program("sidetrack-agent"), "uninstall",
                                             "--state-dir", folder_->file("other"), "--pin-dir",
                                             sidetrack_->pin_dir() + "-other", "--cache-dir",
                                             folder_->file("cache")}}));
  EXPECT_EQ(done.exit_status, 0) << done.output;
  for (const std::string& word :
       {"on cgroup " + cgroup_->path() +
            ": another agent's; end that, then remove it with "
            "sidetrack-agent uninstall --pin-dir " +
            sidetrack_->pin_dir() + "\n",
        "nothing of what was pinned at " + sidetrack_->pin_dir() + "-other is left"}) {
    EXPECT_NE(done.output.find(word), std::string::npos) << word << "\n" << done.output;
  }
  expect_connections(5, "redirected");
}

TEST_F(Uninstall, refuses_a_cgroup_that_is_none) {
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  std::vector<std::string> arguments = command("0s");
  std::replace(arguments.begin(), arguments.end(), cgroup_->path(), std::string("/nope"));
  ST_ASSERT_VALUE(const auto done, run_command({.arguments = arguments}));
  EXPECT_EQ(done.exit_status, 2) << done.output;
  EXPECT_NE(done.output.find("--cgroup /nope"), std::string::npos) << done.output;
  EXPECT_TRUE(std::filesystem::exists(sidetrack_->pin_dir()));
}

TEST_F(Uninstall, makes_no_state_folder) {
  const std::string missing = folder_->file("missing");
  const auto with_missing_state = [&] {
    std::vector<std::string> arguments = command("0s");
    std::replace(arguments.begin(), arguments.end(), sidetrack_->state_dir(), missing + "/state");
    return run_command({.arguments = arguments});
  };
  // Whatever the folder: the pins are an agent's.
  ST_ASSERT_VALUE(const auto refused, with_missing_state());
  EXPECT_EQ(refused.exit_status, 1) << refused.output;
  EXPECT_FALSE(std::filesystem::exists(missing));
  expect_connections(5, "redirected");
  ST_ASSERT_VALUE(const auto status, sidetrack_->get("/v1/status"));
  EXPECT_EQ(status.value("repairs", -1), 0) << "it had changed something";

  ASSERT_NO_FATAL_FAILURE(stop_agent());
  ST_ASSERT_VALUE(const auto done, with_missing_state());
  EXPECT_EQ(done.exit_status, 0) << done.output;
  EXPECT_FALSE(std::filesystem::exists(missing));
  EXPECT_FALSE(std::filesystem::exists(sidetrack_->pin_dir()));
}

TEST_F(Uninstall, takes_away_what_a_killed_self_test_left) {
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  ST_ASSERT_VALUE(
      auto self_test,
      Process::start({.arguments = {built_program("sidetrack-agent"), "self-test", "--cgroup",
                                    cgroup_->path(), "--pin-dir", sidetrack_->pin_dir()}}));
  const std::string number = std::to_string(self_test->pid());
  const std::string pins = sidetrack_->pin_dir() + "-selftest-" + number;
  const std::string cgroup = cgroup_->path() + "/sidetrack-selftest-" + number;
  ASSERT_TRUE(eventually(kPatience, [&] { return std::filesystem::exists(pins + "/v1/maps"); }))
      << self_test->output();
  self_test->kill_hard();
  ASSERT_TRUE(std::filesystem::exists(cgroup));
  ST_ASSERT_VALUE(const auto done, run_command({.arguments = command("0s")}));
  EXPECT_EQ(done.exit_status, 0) << done.output;
  for (const std::string& path : {pins, cgroup}) {
    EXPECT_FALSE(std::filesystem::exists(path)) << done.output;
    EXPECT_NE(done.output.find("removed " + path + "\n"), std::string::npos) << done.output;
  }
}

// A mistyped folder of the CNI configuration is no clean node.
TEST_F(Uninstall, takes_all_else_away_and_fails_where_the_plugin_cannot_be_looked_for) {
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  std::vector<std::string> words = command("0s");
  const std::string folder = sidetrack_->state_dir() + "-no-such-folder";
  words.insert(words.end(), {"--cni-conf-dir", folder, "--cni-bin-dir", folder});
  ST_ASSERT_VALUE(const auto done, run_command({.arguments = words}));
  EXPECT_EQ(done.exit_status, 1) << done.output;
  for (const std::string& text :
       {"left list " + folder + ": No such file", std::string("--cni-conf-dir")}) {
    EXPECT_NE(done.output.find(text), std::string::npos) << text << "\n" << done.output;
  }
  EXPECT_EQ(done.output.find("is out of"), std::string::npos) << done.output;
  expect_nothing_left();
}

TEST_F(Uninstall, leaves_the_plugin_where_it_is_if_that_is_wanted) {
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  const std::string configurations = folder_->file("net.d");
  const std::string programs = folder_->file("bin");
  std::filesystem::create_directory(configurations);
  std::filesystem::create_directory(programs);
  const std::string conflist = configurations + "/10-main.conflist";
  const std::string program = programs + "/sidetrack-cni";
  const std::string chained = R"({"cniVersion": "1.0.0", "name": "main", "plugins": [)"
                              R"({"type": "bridge"}, {"type": "sidetrack-cni"}]})";
  std::ofstream(conflist) << chained;
  std::ofstream(program) << "the program";
  std::vector<std::string> words = command("0s");
  words.insert(words.end(),
               {"--cni-conf-dir", configurations, "--cni-bin-dir", programs, "--keep-conflist"});

  ST_ASSERT_VALUE(const auto kept, run_command({.arguments = words}));
  EXPECT_EQ(kept.exit_status, 0) << kept.output;
  EXPECT_EQ(text_of(conflist), chained);
  EXPECT_EQ(text_of(program), "the program");
  EXPECT_NE(kept.output.find("kept sidetrack-cni in " + configurations + " and " + programs + "\n"),
            std::string::npos)
      << kept.output;
  EXPECT_EQ(kept.output.find("is out of"), std::string::npos) << kept.output;
  expect_nothing_left();

  words.pop_back();
  ST_ASSERT_VALUE(const auto done, run_command({.arguments = words}));
  EXPECT_EQ(done.exit_status, 0) << done.output;
  EXPECT_EQ(text_of(conflist).find("sidetrack-cni"), std::string::npos) << text_of(conflist);
  EXPECT_FALSE(std::filesystem::exists(program)) << done.output;
}

TEST_F(Uninstall, says_so_when_there_is_nothing) {
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  for (int i = 0; i < 2; ++i) {
    ST_ASSERT_VALUE(const auto done, run_command({.arguments = command("0s")}));
    EXPECT_EQ(done.exit_status, 0) << done.output;
  }
  expect_nothing_left();
}

}  // namespace
}  // namespace sidetrack::lab
