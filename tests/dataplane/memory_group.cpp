// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/memory_group.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace sidetrack::lab {
namespace {

constexpr const char* kRoot = "/sys/fs/cgroup/memory";
constexpr const char* kSocketLimit = "memory.kmem.tcp.limit_in_bytes";

void write(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  EXPECT_TRUE(file.good()) << path << ": " << text;
}

}  // namespace

bool MemoryGroup::is_possible() {
  return std::filesystem::exists(std::string(kRoot) + "/" + kSocketLimit);
}

MemoryGroup::MemoryGroup(std::uint64_t socket_bytes)
    : path_(std::string(kRoot) + "/st-" + std::to_string(::getpid()) + "-memory") {
  EXPECT_EQ(::mkdir(path_.c_str(), 0755), 0) << path_;
  write(path_ + "/" + kSocketLimit, std::to_string(socket_bytes));
}

MemoryGroup::~MemoryGroup() {
  for (const pid_t pid : inside_) {
    write(std::string(kRoot) + "/cgroup.procs", std::to_string(pid));
  }
  EXPECT_EQ(::rmdir(path_.c_str()), 0) << path_;
}

void MemoryGroup::add(pid_t pid) {
  write(path_ + "/cgroup.procs", std::to_string(pid));
  inside_.push_back(pid);
}

}  // namespace sidetrack::lab
