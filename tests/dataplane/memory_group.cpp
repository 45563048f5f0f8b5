// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/memory_group.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "sidetrack/cgroup/process_cgroup.h"

namespace sidetrack::lab {
namespace {

constexpr const char* kRoot = "/sys/fs/cgroup/memory";  // of version 1
constexpr const char* kSocketLimit = "memory.kmem.tcp.limit_in_bytes";

void write(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  EXPECT_TRUE(file.good()) << path << ": " << text;
}

bool is_version_1() {
  return std::filesystem::exists(std::string(kRoot) + "/" + kSocketLimit);
}

bool is_handed_down() {
  const auto root = cgroup::find_hierarchy();
  std::ifstream file(root ? *root + "/cgroup.subtree_control" : "");
  const std::istream_iterator<std::string> begin(file);
  return std::find(begin, {}, "memory") != std::istream_iterator<std::string>();
}

}  // namespace

bool MemoryGroup::is_possible() {
  return is_version_1() || is_handed_down();
}

MemoryGroup::MemoryGroup(std::uint64_t bytes) {
  if (is_version_1()) {
    path_ = std::string(kRoot) + "/st-" + std::to_string(::getpid()) + "-memory";
    EXPECT_EQ(::mkdir(path_.c_str(), 0755), 0) << path_;
    write(path_ + "/" + kSocketLimit, std::to_string(bytes));
    return;
  }
  auto group = TestCgroup::create("memory");
  EXPECT_TRUE(group.has_value()) << group.error().message;
  if (group) {
    path_ = group->path();
    write(path_ + "/memory.max", std::to_string(bytes));
    unified_.emplace(std::move(*group));
  }
}

MemoryGroup::~MemoryGroup() {
  for (const auto& [pid, before] : inside_) {
    write(before + "/cgroup.procs", std::to_string(pid));
  }
  if (is_version_1()) {
    EXPECT_EQ(::rmdir(path_.c_str()), 0) << path_;
  }
}

void MemoryGroup::add(pid_t pid) {
  std::string before = kRoot;
  if (unified_) {
    const auto folder = cgroup::folder_of_process(pid);
    ASSERT_TRUE(folder.has_value()) << folder.error().message;
    before = *folder;
  }
  write(path_ + "/cgroup.procs", std::to_string(pid));
  inside_.emplace_back(pid, before);
}

}  // namespace sidetrack::lab
