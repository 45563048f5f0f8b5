// SPDX-License-Identifier: Apache-2.0
// Whose processes keep a cgroup from being an engine's: those that are there at both looks.
#include "agent/main/engine_dir.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "tests/lab/cgroup.h"
#include "tests/lab/process.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

class EngineDir : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("engine-dir"));
    cgroup_.emplace(std::move(cgroup));
    ST_ASSERT_VALUE(engine_, cgroup_->child("engine"));
  }
  [[nodiscard]] std::unique_ptr<Process> put(std::vector<std::string> arguments) const {
    auto started = Process::start({.arguments = std::move(arguments), .cgroup_path = engine_});
    EXPECT_TRUE(started) << (started ? "" : started.error().message);
    return started ? std::move(*started) : nullptr;
  }
  [[nodiscard]] Result<void> check(const std::function<void()>& between) const {
    return agent::check_engine_dir(reconcile::EngineKind::kEmbedded, cgroup_->path(), engine_,
                                   between);
  }

  std::optional<TestCgroup> cgroup_;
  std::string engine_;
};

std::string command_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
  std::string command;
  std::getline(file, command);
  return command;
}

TEST_F(EngineDir, what_becomes_the_engine_is_no_stranger) {
  ST_ASSERT_VALUE(const TempDir folder, TempDir::create("engine-dir"));
  const std::string engine = folder.file("sidetrack-engine");
  std::filesystem::create_symlink("/bin/sleep", engine);
  const auto process = put({"sh", "-c", "read word; exec \"$0\" 600", engine});
  ASSERT_NE(process, nullptr);
  int waited = 0;
  const auto checked = check([&] {
    ++waited;
    ST_ASSERT_OK(process->write("go\n"));
    EXPECT_TRUE(eventually(kPatience, [&] {
      return command_of(process->pid()) == "sidetrack-engin";
    })) << command_of(process->pid());
  });
  ST_ASSERT_OK(checked);
  ST_ASSERT_OK(check([&] { ++waited; }));
  EXPECT_EQ(waited, 1) << "where nobody strange is, nobody waits";
}

TEST_F(EngineDir, a_stranger_that_stays_is_named) {
  const auto process = put({"sleep", "600"});
  ASSERT_NE(process, nullptr);
  const auto checked = check([] {});
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, ErrorCode::kInvalid);
  EXPECT_NE(checked.error().message.find(std::to_string(process->pid()) + " (sleep)"),
            std::string::npos)
      << checked.error().message;
}

TEST_F(EngineDir, two_that_come_one_after_the_other_are_none_that_stays) {
  const auto first = put({"sleep", "600"});
  ASSERT_NE(first, nullptr);
  std::unique_ptr<Process> second;
  const auto checked = check([&] {
    first->kill_hard();
    second = put({"sleep", "600"});
  });
  ST_ASSERT_OK(checked);
}

}  // namespace
}  // namespace sidetrack::lab
