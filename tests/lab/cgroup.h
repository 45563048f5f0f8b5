// SPDX-License-Identifier: Apache-2.0
// TestCgroup: a cgroup2 folder of a test's own, at the cgroup2 root that mountinfo names. What is
// left in it at the end is ended by pid and the folder (with sub-folders that others made in it)
// removed. Nothing comes into a cgroup of this unique name but what the test put there and its
// children, so those pids are ours; the calling process itself is never ended. Thread rule: one
// owner.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "sidetrack/result.h"

namespace sidetrack::lab {

// The kernel's 64-bit id of a cgroup folder (bpf_get_current_cgroup_id).
[[nodiscard]] Result<std::uint64_t> cgroup_id(const std::string& path);

class TestCgroup {
 public:
  static Result<TestCgroup> create(std::string_view name);
  TestCgroup(TestCgroup&& other) noexcept;
  TestCgroup& operator=(TestCgroup&&) = delete;
  TestCgroup(const TestCgroup&) = delete;
  TestCgroup& operator=(const TestCgroup&) = delete;
  ~TestCgroup();

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::uint64_t id() const { return id_; }
  // Makes the sub-cgroup `name` and gives its path (idempotent).
  Result<std::string> child(std::string_view name) const;
  Result<void> add(pid_t pid) const;

 private:
  TestCgroup(std::string path, std::uint64_t id) : path_(std::move(path)), id_(id) {}

  std::string path_;
  std::uint64_t id_ = 0;
};

}  // namespace sidetrack::lab
