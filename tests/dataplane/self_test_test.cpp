// SPDX-License-Identifier: Apache-2.0
// `sidetrack-agent self-test`, as its own command and at the start of an agent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "tests/lab/cgroup.h"
#include "tests/lab/process.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {
namespace {

namespace fs = std::filesystem;

class SelfTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("selftest"));
    cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
    ST_ASSERT_VALUE(auto folder, TempDir::create("selftest"));
    folder_ = std::make_unique<TempDir>(std::move(folder));
    ST_ASSERT_VALUE(auto bpf, BpfFileSystem::mount(folder_->file("bpf")));
    bpf_ = std::make_unique<BpfFileSystem>(std::move(bpf));
  }

  [[nodiscard]] std::vector<std::string> command() const {
    return {built_program("sidetrack-agent"),
            "self-test",
            "-o",
            "json",
            "--cgroup",
            cgroup_->path(),
            "--pin-dir",
            bpf_->path() + "/sidetrack"};
  }
  // What the report says is missing here, if that is all that is wrong.
  static std::string missing_helper(const CommandResult& result) {
    const auto report = nlohmann::json::parse(result.output, nullptr, false);
    if (result.exit_status != 1 || !report.is_object() || report["checks"].size() != 1) {
      return "";
    }
    const std::string detail = report["checks"][0]["detail"];
    return lacks_a_helper(detail) ? detail : "";
  }
  [[nodiscard]] bool nothing_is_left() const {
    for (const std::string& folder : {cgroup_->path(), bpf_->path()}) {
      for (const auto& entry : fs::directory_iterator(folder)) {
        if (entry.path().filename().string().rfind("sidetrack", 0) == 0) {
          return false;
        }
      }
    }
    return true;
  }

  std::unique_ptr<TestCgroup> cgroup_;
  std::unique_ptr<TempDir> folder_;
  std::unique_ptr<BpfFileSystem> bpf_;
};

TEST_F(SelfTest, passes_here_and_leaves_nothing) {
  ST_ASSERT_VALUE(const auto result, run_command({.arguments = command()}));
  EXPECT_TRUE(nothing_is_left());
  if (const std::string refused = missing_helper(result); !refused.empty()) {
    GTEST_SKIP() << "no fast path on this kernel: " << refused;
  }
  EXPECT_EQ(result.exit_status, 0) << result.output;
  const auto report = nlohmann::json::parse(result.output);
  EXPECT_TRUE(report["passed"]) << result.output;
  EXPECT_GE(report["checks"].size(), 8U);  // one more where fentry is allowed
}

TEST_F(SelfTest, one_that_was_killed_is_cleaned_up_by_the_next) {
  ST_ASSERT_VALUE(auto killed, Process::start({.arguments = command()}));
  EXPECT_TRUE(eventually(kPatience, [&] { return !nothing_is_left(); }));
  ST_ASSERT_OK(killed->signal(SIGKILL));
  ST_ASSERT_OK(killed->wait(kPatience));
  EXPECT_FALSE(nothing_is_left());
  ST_ASSERT_VALUE(const auto result, run_command({.arguments = command()}));
  EXPECT_EQ(result.exit_status, 0) << result.output;
  EXPECT_TRUE(nothing_is_left());
}

TEST_F(SelfTest, one_that_was_killed_is_cleaned_up_by_one_with_its_process_id) {
  // As in a container: each run is process 1 of a namespace.
  auto arguments = command();
  arguments.insert(arguments.begin(), {"unshare", "--pid", "--fork", "--kill-child"});
  const std::string made = cgroup_->path() + "/sidetrack-selftest-1";
  ST_ASSERT_VALUE(auto killed, Process::start({.arguments = arguments}));
  EXPECT_TRUE(eventually(kPatience, [&] { return fs::exists(made); })) << killed->output();
  ST_ASSERT_OK(killed->signal(SIGKILL));
  ST_ASSERT_OK(killed->wait(kPatience));
  const auto is_empty = [&] {
    std::ifstream events(made + "/cgroup.events");
    const std::string text{std::istreambuf_iterator<char>(events), {}};
    return text.find("populated 0") != std::string::npos;
  };
  EXPECT_TRUE(eventually(kPatience, is_empty));
  ST_ASSERT_VALUE(const auto result, run_command({.arguments = arguments}));
  EXPECT_EQ(result.exit_status, 0) << result.output;
  EXPECT_TRUE(nothing_is_left());
}

TEST_F(SelfTest, a_signal_ends_it_and_it_leaves_nothing) {
  for (const int signal : {SIGINT, SIGTERM}) {
    ST_ASSERT_VALUE(auto running, Process::start({.arguments = command()}));
    EXPECT_TRUE(eventually(kPatience, [&] { return !nothing_is_left(); })) << running->output();
    ST_ASSERT_OK(running->signal(signal));
    ST_ASSERT_VALUE(const int status, running->wait());
    EXPECT_EQ(status, 128 + signal) << running->output();
    EXPECT_TRUE(nothing_is_left()) << running->output();
  }
}

TEST_F(SelfTest, without_capabilities_it_says_so) {
  auto arguments = command();
  arguments.insert(arguments.begin(), {"setpriv", "--bounding-set=-all", "--inh-caps=-all"});
  ST_ASSERT_VALUE(const auto result, run_command({.arguments = arguments}));
  EXPECT_NE(result.exit_status, 0);
  EXPECT_THAT(result.output, testing::HasSubstr("sidetrack-agent: "));
  EXPECT_TRUE(nothing_is_left());
}

}  // namespace
}  // namespace sidetrack::lab
