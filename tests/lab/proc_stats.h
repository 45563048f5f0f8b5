// SPDX-License-Identifier: Apache-2.0
// What a process holds, from /proc. 0 for one that is gone. Thread rule: plain functions.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

namespace sidetrack::lab {

[[nodiscard]] inline std::uint64_t resident_bytes(pid_t pid) {
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  std::ifstream("/proc/" + std::to_string(pid) + "/statm") >> total >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

[[nodiscard]] inline std::int64_t open_files(pid_t pid) {
  std::error_code failure;
  return std::distance(
      std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", failure), {});
}

// proc_pid_stat(5): the first field after the name in brackets; '?' for one that is gone.
[[nodiscard]] inline char process_state(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::size_t bracket = text.rfind(") ");
  return bracket == std::string::npos ? '?' : text[bracket + 2];
}

}  // namespace sidetrack::lab
