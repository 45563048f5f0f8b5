// SPDX-License-Identifier: Apache-2.0
// Process: a program started by a test, in a cgroup and network namespace of choice (it is in both
// before its first instruction), with its output collected by a reader thread. Ended with SIGKILL
// and reaped by the destructor. Thread rule: one owner; start it from a thread that outlives it (it
// dies with that thread, so that a crashed test leaves nothing behind).
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidetrack/result.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {

struct ProcessSpec {
  std::vector<std::string> arguments{};              // [0] is the program, looked up in PATH
  std::map<std::string, std::string> environment{};  // added to ours
  std::string netns_path{};                          // empty: the caller's
  std::string cgroup_path{};                         // empty: the caller's
  std::string log_file{};  // stdout and stderr also go there, if not empty
};

class Process {
 public:
  // Returns when the program runs, in its place; an error if it cannot be entered or the program
  // not be run.
  static Result<std::unique_ptr<Process>> start(const ProcessSpec& spec);
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  [[nodiscard]] pid_t pid() const;
  [[nodiscard]] bool running();
  // The exit status as a shell shows it: 0-255, 128 + N after signal N. kBusy: still running after
  // `within`.
  Result<int> wait(milliseconds within = kPatience);
  // SIGSTOP: returns when all of its threads stand still, or it has ended. kNotFound: it has ended
  // and was reaped.
  Result<void> signal(int number);
  // SIGTERM, then SIGKILL after `within`; the exit status.
  Result<int> terminate(milliseconds within = kPatience);
  // kill -9 and reap.
  void kill_hard();

  // Waits until stdout or stderr holds `text`. kBusy: not within the time; kNotFound: it ended
  // without saying it. The error shows the output.
  Result<void> wait_for_output(std::string_view text, milliseconds within = kPatience);
  // Waits until both streams were closed by everything that held them.
  Result<void> wait_for_end_of_output(milliseconds within = kPatience);
  // All of stdout and stderr so far, in order of arrival.
  [[nodiscard]] std::string output() const;
  // stdout alone.
  [[nodiscard]] std::string standard_output() const;

  // Writes to its stdin.
  Result<void> write(std::string_view text);
  void close_input();
  // The next unread line of stdout without its newline.
  Result<std::string> read_line(milliseconds within = kPatience);

 private:
  struct State;
  explicit Process(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

struct CommandSpec {
  std::vector<std::string> arguments{};
  std::string input{};  // given as stdin
  std::string netns_path{};
  std::string cgroup_path{};
  milliseconds within = kPatience;
};

struct CommandResult {
  int exit_status = 0;
  std::string output{};           // stdout and stderr
  std::string standard_output{};  // stdout alone
};

// Runs a program to its end. An exit status other than 0 is a result, not an error.
Result<CommandResult> run_command(const CommandSpec& spec);

// Folder of the lab's programs (st_echo, st_pod_shell, st_launch): $ST_LAB_DIR, else that of the
// build.
[[nodiscard]] std::string lab_program(std::string_view name);
// build/bin/NAME: $ST_BIN_DIR, else that of the build.
[[nodiscard]] std::string built_program(std::string_view name);

}  // namespace sidetrack::lab
