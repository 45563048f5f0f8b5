// SPDX-License-Identifier: Apache-2.0
// An agent that is told something wrong says what and changes nothing.
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

class AgentStart : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      make_sidetrack();
    }
  }
  // The agent's command with `option` set to `value`.
  ProcessSpec with(const std::string& option, const std::string& value) const {
    ProcessSpec spec = sidetrack_->agent_spec();
    auto& words = spec.arguments;
    const auto found = std::find(words.begin(), words.end(), option);
    if (found == words.end()) {
      words.insert(words.end(), {option, value});
    } else {
      *std::next(found) = value;
    }
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

TEST_F(AgentStart, refuses_a_cgroup_that_is_none) {
  expect_refusal(with("--cgroup", folder_->path().string()), 2,
                 {folder_->path().string(), "cgroup2"});
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

TEST_F(AgentStart, says_what_it_needs_when_it_is_not_privileged) {
  ProcessSpec spec = sidetrack_->agent_spec();
  spec.arguments.insert(spec.arguments.begin(), {"setpriv", "--bounding-set=-all"});
  expect_refusal(spec, 1, {"CAP_BPF"});
}

}  // namespace
}  // namespace sidetrack::lab
