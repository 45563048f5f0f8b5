// SPDX-License-Identifier: Apache-2.0
// A start that fails changes nothing, and one that would fail later does not wait (--standby): a
// rollout stops while the old agent lives.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fault_node.h"
#include "tests/lab/netns.h"

namespace sidetrack::lab {
namespace {

namespace fs = std::filesystem;

class AgentStandby : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      make_sidetrack();
    }
  }
  static void set(ProcessSpec& spec, const std::string& option, const std::string& value) {
    auto& words = spec.arguments;
    const auto found = std::find(words.begin(), words.end(), option);
    ASSERT_NE(found, words.end()) << option;
    *std::next(found) = value;
  }
  [[nodiscard]] ProcessSpec with(const std::string& option, const std::string& value) const {
    ProcessSpec spec = sidetrack_->agent_spec();
    set(spec, option, value);
    return spec;
  }
  // It ends with `status` and says all of `words`.
  static void expect_refusal(const ProcessSpec& spec, int status,
                             const std::vector<std::string>& words) {
    ST_ASSERT_VALUE(auto agent, Process::start(spec));
    ST_ASSERT_VALUE(const int ended, agent->wait());
    EXPECT_EQ(ended, status) << agent->output();
    for (const std::string& word : words) {
      EXPECT_NE(agent->output().find(word), std::string::npos) << word << "\n" << agent->output();
    }
  }
  void expect_refusal_of_standby(ProcessSpec spec, int status,
                                 const std::vector<std::string>& words) {
    spec.arguments.emplace_back("--standby");
    expect_refusal(spec, status, words);
    EXPECT_TRUE(sidetrack_->agent().running());
  }
  // Something of another's that listens in the node's namespace; its address.
  std::string occupy_a_port() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    const auto listened = lab_->node().run([&]() -> Result<void> {
      listener_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      auto* generic = reinterpret_cast<sockaddr*>(&address);
      return ::bind(listener_.get(), generic, size) == 0 && ::listen(listener_.get(), 1) == 0 &&
                     ::getsockname(listener_.get(), generic, &size) == 0
                 ? Result<void>()
                 : errno_error("listen", errno);
    });
    EXPECT_TRUE(listened.has_value());
    return "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  UniqueFd listener_;
};

TEST_F(AgentStandby, a_start_that_fails_leaves_nothing_behind) {
  const std::string address = occupy_a_port();
  const std::string state = folder_->file("state");
  ProcessSpec taken = with("--http", address);
  set(taken, "--state-dir", state);
  expect_refusal(taken, 1, {"--http", address, "in use"});
  EXPECT_FALSE(fs::exists(sidetrack_->pin_dir()));
  EXPECT_FALSE(fs::exists(state));

  // What it only meets when everything is attached.
  ProcessSpec odd = with("--state-dir", state);
  fs::create_directories(state + "/admin.sock/of-somebody");
  expect_refusal(odd, 1, {state + "/admin.sock"});
  EXPECT_FALSE(fs::exists(sidetrack_->pin_dir()));
  EXPECT_FALSE(fs::exists(state + "/agent.lock"));
}

TEST_F(AgentStandby, a_start_that_fails_leaves_in_force_what_was_there) {
  start_echo();
  start_sidetrack();
  ST_ASSERT_OK(sidetrack_->agent().terminate());
  expect_refusal(with("--http", occupy_a_port()), 1, {"--http"});
  expect_connections(5, "redirected");
}

TEST_F(AgentStandby, does_not_wait_where_it_would_fail_later) {
  ST_ASSERT_OK(sidetrack_->start_agent());
  const std::string address = occupy_a_port();
  expect_refusal_of_standby(with("--http", address), 1, {"--http", address, "in use"});
  expect_refusal_of_standby(with("--http", "203.0.113.1:15880"), 2, {"--http", "203.0.113.1"});
  expect_refusal_of_standby(with("--objects", "/nope"), 2, {"--objects /nope"});
  expect_refusal_of_standby(with("--engine-cgroup", "/nope"), 2, {"--engine-cgroup /nope"});
  expect_refusal_of_standby(with("--pin-dir", sidetrack_->pin_dir() + "-other"), 2,
                            {"another Sidetrack", "pinned at " + sidetrack_->pin_dir()});
}

TEST_F(AgentStandby, does_not_wait_for_one_agent_to_meet_another) {
  // The first has our state folder, the second our cgroup and pins.
  ST_ASSERT_VALUE(const TestCgroup cgroup, TestCgroup::create("first"));
  ProcessSpec other = with("--cgroup", cgroup.path());
  const std::string state = folder_->file("first");
  set(other, "--state-dir", state);
  set(other, "--pin-dir", sidetrack_->pin_dir() + "-first");
  set(other, "--engine", "none");
  set(other, "--engine-cgroup", cgroup.path());
  set(other, "--http", "127.0.0.1:0");
  ST_ASSERT_VALUE(auto first, Process::start(other));
  ASSERT_TRUE(eventually(kPatience, [&] { return fs::exists(state + "/admin.sock"); }))
      << first->output();
  ST_ASSERT_OK(sidetrack_->start_agent());
  ProcessSpec spec = with("--state-dir", state);
  set(spec, "--http", "127.0.0.1:0");
  expect_refusal_of_standby(spec, 1, {"--pin-dir " + sidetrack_->pin_dir(), "another agent's"});
  ST_ASSERT_OK(first->terminate());
  ST_ASSERT_OK(run_command(
      {.arguments = {built_program("sidetrack-agent"), "uninstall", "--state-dir", state,
                     "--cgroup", cgroup.path(), "--pin-dir", sidetrack_->pin_dir() + "-first"}}));
}

TEST_F(AgentStandby, waits_for_who_has_the_address_that_it_wants) {
  ST_ASSERT_OK(sidetrack_->start_agent());
  ProcessSpec spec = sidetrack_->agent_spec();
  spec.arguments.emplace_back("--standby");
  ST_ASSERT_VALUE(auto standby, Process::start(spec));
  ST_ASSERT_OK(standby->wait_for_output("event=standby"));
  ST_ASSERT_OK(sidetrack_->agent().terminate());
  ST_ASSERT_OK(standby->wait_for_output("event=listening"));
  ST_ASSERT_OK(standby->terminate());
}

TEST_F(AgentStandby, says_that_it_is_not_ready_and_answers_nothing_until_it_is) {
  constexpr std::uint16_t kHttp = 15890;
  ST_ASSERT_OK(sidetrack_->start_agent());
  ProcessSpec spec = with("--http", "127.0.0.1:" + std::to_string(kHttp));
  spec.arguments.emplace_back("--standby");
  ST_ASSERT_VALUE(auto standby, Process::start(spec));
  ST_ASSERT_OK(standby->wait_for_output("event=standby ready=false"));
  for (const char* path : {"/readyz", "/healthz"}) {
    EXPECT_FALSE(sidetrack_->get_http(path, kHttp).has_value()) << path;
    EXPECT_TRUE(sidetrack_->get_http(path).has_value()) << path << " of who has the lock";
  }
  ST_ASSERT_OK(sidetrack_->agent().terminate());
  EXPECT_TRUE(eventually(kPatience, [&] {
    return sidetrack_->get_http("/readyz", kHttp).has_value();
  })) << standby->output();
  EXPECT_FALSE(sidetrack_->get_http("/readyz").has_value());
  ST_ASSERT_OK(standby->terminate());
}

TEST_F(AgentStandby, does_not_move_pinned_programs_to_another_cgroup) {
  start_echo();
  start_sidetrack();
  ST_ASSERT_VALUE(const TestCgroup other, TestCgroup::create("other"));
  ProcessSpec spec = with("--cgroup", other.path());
  set(spec, "--engine-cgroup", other.path());
  const std::vector<std::string> words = {
      "attached to cgroup " + cgroup_->path() + ", not to " + other.path(),
      "sidetrack-agent uninstall --pin-dir " + sidetrack_->pin_dir()};
  expect_refusal_of_standby(spec, 2, words);
  sidetrack_->agent().kill_hard();
  expect_refusal(spec, 2, words);
  expect_connections(5, "redirected");
}

}  // namespace
}  // namespace sidetrack::lab
