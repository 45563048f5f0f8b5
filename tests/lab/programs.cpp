// SPDX-License-Identifier: Apache-2.0
// Where programs are, and commands that are run to their end.
#include <fmt/format.h>

#include <cstdlib>

#include "tests/lab/process.h"

namespace sidetrack::lab {
namespace {

std::string program_path(const char* variable, const char* built_in, std::string_view name) {
  const char* folder = std::getenv(variable);
  return fmt::format("{}/{}", folder != nullptr && *folder != '\0' ? folder : built_in, name);
}

}  // namespace

Result<CommandResult> run_command(const CommandSpec& spec) {
  auto process = Process::start({.arguments = spec.arguments,
                                 .environment = {},
                                 .netns_path = spec.netns_path,
                                 .cgroup_path = spec.cgroup_path,
                                 .log_file = {}});
  if (!process) {
    return process.error();
  }
  ST_TRY((*process)->write(spec.input));
  (*process)->close_input();
  auto status = (*process)->wait(spec.within);
  ST_TRY(status);
  ST_TRY((*process)->wait_for_end_of_output(spec.within));
  return CommandResult{.exit_status = *status,
                       .output = (*process)->output(),
                       .standard_output = (*process)->standard_output()};
}

std::string lab_program(std::string_view name) {
  return program_path("ST_LAB_DIR", ST_BUILT_LAB_DIR, name);
}
std::string built_program(std::string_view name) {
  return program_path("ST_BIN_DIR", ST_BUILT_BIN_DIR, name);
}

}  // namespace sidetrack::lab
