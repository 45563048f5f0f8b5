// SPDX-License-Identifier: Apache-2.0
// MemoryGroup: a memory cgroup, of either version, with little room for sockets; a process that is
// in it makes its sockets there. Thread rule: one owner.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/lab/cgroup.h"

namespace sidetrack::lab {

class MemoryGroup {
 public:
  // Whether this machine has the controller: that of version 1, or that of version 2 handed down by
  // the root (cgroup.subtree_control), which no test changes.
  [[nodiscard]] static bool is_possible();

  // Version 2 knows no limit of sockets alone: it is that of the whole group, whose processes bring
  // no memory along.
  explicit MemoryGroup(std::uint64_t bytes);
  ~MemoryGroup();
  MemoryGroup(const MemoryGroup&) = delete;
  MemoryGroup& operator=(const MemoryGroup&) = delete;

  // Until the group ends.
  void add(pid_t pid);

 private:
  std::optional<TestCgroup> unified_;  // version 2
  std::string path_;
  std::vector<std::pair<pid_t, std::string>> inside_;  // and where they were
};

}  // namespace sidetrack::lab
