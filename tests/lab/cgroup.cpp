// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cgroup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "sidetrack/cgroup/process_cgroup.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

std::vector<pid_t> members_of(const std::string& path) {
  std::vector<pid_t> pids;
  std::ifstream procs(path + "/cgroup.procs");
  for (pid_t pid = 0; procs >> pid;) {
    pids.push_back(pid);
  }
  return pids;
}

void end_members(const std::string& path) {
  for (const pid_t pid : members_of(path)) {
    if (pid == ::getpid()) {
      // Joining the parent folder is the way out of a cgroup.
      const std::string parent = std::filesystem::path(path).parent_path().string();
      (void)write_existing(parent + "/cgroup.procs", std::to_string(pid));
    } else if (pid > 0) {
      ::kill(pid, SIGKILL);
    }
  }
}

void remove_tree(const std::string& path) {
  std::error_code ignored;
  std::vector<std::string> children;
  for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
    if (entry.is_directory(ignored)) {
      children.push_back(entry.path().string());
    }
  }
  for (const std::string& child : children) {
    remove_tree(child);
  }
  // A killed member leaves the cgroup only when it has been torn down.
  (void)eventually(kPatience, [&] {
    end_members(path);
    return ::rmdir(path.c_str()) == 0 || errno == ENOENT;
  });
}

}  // namespace

Result<std::uint64_t> cgroup_id(const std::string& path) {
  alignas(file_handle) char storage[sizeof(file_handle) + sizeof(std::uint64_t)] = {};
  auto* handle = reinterpret_cast<file_handle*>(storage);
  handle->handle_bytes = sizeof(std::uint64_t);
  int mount_id = 0;
  if (::name_to_handle_at(AT_FDCWD, path.c_str(), handle, &mount_id, 0) != 0) {
    return errno_error("id of cgroup " + path, errno);
  }
  std::uint64_t id = 0;
  std::memcpy(&id, storage + sizeof(file_handle), sizeof(id));
  return id;
}

Result<TestCgroup> TestCgroup::create(std::string_view name) {
  auto root = cgroup::find_hierarchy();
  if (!root) {
    return root.error();
  }
  const std::string path = *root + "/" + unique_name(name);
  if (::mkdir(path.c_str(), 0755) != 0) {
    return errno_error("create cgroup " + path, errno);
  }
  auto id = cgroup_id(path);
  if (!id) {
    ::rmdir(path.c_str());
    return id.error();
  }
  return TestCgroup(path, *id);
}

TestCgroup::TestCgroup(TestCgroup&& other) noexcept
    : path_(std::exchange(other.path_, {})), id_(std::exchange(other.id_, 0)) {}

TestCgroup::~TestCgroup() {
  if (!path_.empty()) {
    remove_tree(path_);
  }
}

Result<std::string> TestCgroup::child(std::string_view name) const {
  const std::string path = fmt::format("{}/{}", path_, name);
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
    return errno_error("create cgroup " + path, errno);
  }
  return path;
}

Result<void> TestCgroup::add(pid_t pid) const {
  return write_existing(path_ + "/cgroup.procs", std::to_string(pid));
}

}  // namespace sidetrack::lab
