// SPDX-License-Identifier: Apache-2.0
// What a program cannot say on stderr does not change how it ends; on stdout, it was to be done.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>

namespace sidetrack {
namespace {

// The exit code of a program of this build with these streams; negative: a signal's.
int exit_code_of(const std::string& command, const std::string& streams) {
  const std::string line = "exec " ST_BIN "/" + command + " " + streams;
  const int status = std::system(line.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int exit_code_without_stderr(const std::string& command) {
  return exit_code_of(command, ">/dev/null 2>/dev/full");
}

int exit_code_without_stdout(const std::string& command) {
  return exit_code_of(command, ">/dev/full 2>/dev/null");
}

TEST(CliComplain, where_nothing_can_be_written_the_exit_code_says_it) {
  EXPECT_EQ(exit_code_without_stderr("sidetrack-agent frob"), 2);
  EXPECT_EQ(exit_code_without_stderr("sidetrack-agent run --objects /nope"), 2);
  EXPECT_EQ(exit_code_without_stderr("sidetrack-engine run --threads 0"), 2);
  EXPECT_EQ(exit_code_without_stderr("sidetrack-probe frob"), 2);
  EXPECT_EQ(exit_code_without_stderr("sidetrack-cni frob"), 2);
  EXPECT_EQ(exit_code_without_stderr("sidetrackctl frob"), 2);
  EXPECT_EQ(exit_code_without_stderr("sidetrackctl status --state-dir /nope"), 3);
}

TEST(CliSay, what_could_not_be_written_is_not_called_done) {
  for (const char* program : {"sidetrack-agent", "sidetrack-engine", "sidetrack-probe",
                              "sidetrack-cni", "sidetrackctl"}) {
    for (const char* option : {" --help", " --version"}) {
      EXPECT_EQ(exit_code_without_stdout(std::string(program) + option), 1) << program << option;
      EXPECT_EQ(exit_code_of(std::string(program) + option, ">/dev/null"), 0) << program << option;
    }
  }
}

TEST(CliSay, another_exit_code_stays) {
  EXPECT_EQ(exit_code_without_stdout("sidetrackctl status --state-dir /nope"), 3);
  EXPECT_EQ(exit_code_without_stdout("sidetrack-agent frob"), 2);
}

}  // namespace
}  // namespace sidetrack
