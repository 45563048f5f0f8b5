// SPDX-License-Identifier: Apache-2.0
// What is mounted where, as /proc/PID/mountinfo says. Keeps nothing; any thread.
#pragma once

#include <string>
#include <vector>

namespace sidetrack::files {

struct Mount {
  std::string root;  // which part of the file system is mounted
  std::string point;
  std::string type;
};

// In the file's order; a line that is none is left out. Pure.
[[nodiscard]] std::vector<Mount> parse_mountinfo(const std::string& text);

}  // namespace sidetrack::files
