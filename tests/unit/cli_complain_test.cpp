// SPDX-License-Identifier: Apache-2.0
// What a program cannot say does not change how it ends.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>

namespace sidetrack {
namespace {

// The exit code of a program of this build whose stderr takes nothing; negative: a signal's.
int exit_code_of(const std::string& command) {
  const std::string line = "exec " ST_BIN "/" + command + " >/dev/null 2>/dev/full";
  const int status = std::system(line.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(CliComplain, where_nothing_can_be_written_the_exit_code_says_it) {
  EXPECT_EQ(exit_code_of("sidetrack-agent frob"), 2);
  EXPECT_EQ(exit_code_of("sidetrack-agent run --objects /nope"), 2);
  EXPECT_EQ(exit_code_of("sidetrack-engine run --threads 0"), 2);
  EXPECT_EQ(exit_code_of("sidetrack-probe frob"), 2);
  EXPECT_EQ(exit_code_of("sidetrack-cni frob"), 2);
  EXPECT_EQ(exit_code_of("sidetrackctl frob"), 2);
  EXPECT_EQ(exit_code_of("sidetrackctl status --state-dir /nope"), 3);
}

}  // namespace
}  // namespace sidetrack
