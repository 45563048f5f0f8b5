// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/cgroup/process_cgroup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <vector>

#include "sidetrack/files/mounts.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::cgroup {
namespace {

Result<std::string> contents(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return errno_error(path, errno);
  }
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<files::Mount> cgroup2_mounts(const std::string& mountinfo) {
  std::vector<files::Mount> mounts = files::parse_mountinfo(mountinfo);
  std::erase_if(mounts, [](const files::Mount& mount) { return mount.type != "cgroup2"; });
  return mounts;
}

}  // namespace

Result<std::string> find_folder(const std::string& cgroup, const std::string& mountinfo) {
  std::string path;
  std::istringstream lines(cgroup);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("0::")) {
      path = line.substr(3);
    }
  }
  if (path.empty()) {
    return make_error(ErrorCode::kNotFound, "the process is in no cgroup2");
  }
  for (const files::Mount& mount : cgroup2_mounts(mountinfo)) {
    if (mount.root == "/") {
      return mount.point + path;
    }
    if (path == mount.root || path.starts_with(mount.root + "/")) {
      return mount.point + path.substr(mount.root.size());
    }
  }
  return make_error(ErrorCode::kNotFound, "no cgroup2 is mounted that shows " + path);
}

Result<std::string> find_hierarchy(const std::string& mountinfo) {
  const auto mounts = cgroup2_mounts(mountinfo);
  for (const files::Mount& mount : mounts) {
    if (mount.root == "/") {
      return mount.point;
    }
  }
  if (mounts.empty()) {
    return make_error(
        ErrorCode::kUnsupported,
        "no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified");
  }
  return make_error(ErrorCode::kInvalid,
                    fmt::format("{} shows only the part {} of cgroup2: mount the host's whole "
                                "cgroup2",
                                mounts.front().point, mounts.front().root));
}

Result<std::string> find_hierarchy() {
  auto mountinfo = contents("/proc/self/mountinfo");
  ST_TRY(mountinfo);
  return find_hierarchy(*mountinfo);
}

Result<std::string> folder_of_process(std::int64_t pid) {
  auto cgroup = contents(fmt::format("/proc/{}/cgroup", pid));
  ST_TRY(cgroup);
  auto mountinfo = contents("/proc/self/mountinfo");
  ST_TRY(mountinfo);
  return find_folder(*cgroup, *mountinfo);
}

Result<std::uint64_t> own_id() {
  auto folder = folder_of_process(getpid());
  ST_TRY(folder);
  struct stat status {};
  if (::stat(folder->c_str(), &status) != 0) {
    return errno_error(*folder, errno);
  }
  return std::uint64_t{status.st_ino};
}

Result<void> join_host_namespace(const std::string& host) {
  struct stat own {};
  struct stat wanted {};
  if (::stat("/proc/self/ns/cgroup", &own) != 0 || ::stat(host.c_str(), &wanted) != 0) {
    return errno_error(host, errno);
  }
  if (own.st_ino == wanted.st_ino) {
    return {};
  }
  const UniqueFd fd(::open(host.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid() || setns(fd.get(), CLONE_NEWCGROUP) != 0) {
    return errno_error("enter the cgroup namespace " + host, errno);
  }
  return {};
}

}  // namespace sidetrack::cgroup
