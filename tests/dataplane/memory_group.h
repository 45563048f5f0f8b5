// SPDX-License-Identifier: Apache-2.0
// MemoryGroup: a memory cgroup (v1) with little room for sockets; a process that is in it makes its
// sockets there. Thread rule: one owner.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sidetrack::lab {

class MemoryGroup {
 public:
  // Whether this machine has the controller of version 1.
  [[nodiscard]] static bool is_possible();

  explicit MemoryGroup(std::uint64_t socket_bytes);
  ~MemoryGroup();
  MemoryGroup(const MemoryGroup&) = delete;
  MemoryGroup& operator=(const MemoryGroup&) = delete;

  // Until the group ends.
  void add(pid_t pid);

 private:
  std::string path_;
  std::vector<pid_t> inside_;
};

}  // namespace sidetrack::lab
