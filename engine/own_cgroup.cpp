// SPDX-License-Identifier: Apache-2.0
#include "engine/own_cgroup.h"

#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <vector>

namespace sidetrack::engine {
namespace {

struct Mount {
  std::string root;
  std::string point;
};

Result<std::string> contents(const char* path) {
  std::ifstream file(path);
  if (!file) {
    return errno_error(path, errno);
  }
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw"
std::vector<Mount> cgroup2_mounts(const std::string& mountinfo) {
  std::vector<Mount> mounts;
  std::istringstream lines(mountinfo);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string id;
    std::string parent;
    std::string device;
    Mount mount;
    words >> id >> parent >> device >> mount.root >> mount.point;
    if (line.find(" - cgroup2 ") != std::string::npos) {
      mounts.push_back(mount);
    }
  }
  return mounts;
}

}  // namespace

Result<std::string> cgroup_folder(const std::string& cgroup, const std::string& mountinfo) {
  std::string path;
  std::istringstream lines(cgroup);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("0::")) {
      path = line.substr(3);
    }
  }
  if (path.empty()) {
    return make_error(ErrorCode::kNotFound, "this process is in no cgroup2");
  }
  for (const Mount& mount : cgroup2_mounts(mountinfo)) {
    if (mount.root == "/") {
      return mount.point + path;
    }
    if (path == mount.root || path.starts_with(mount.root + "/")) {
      return mount.point + path.substr(mount.root.size());
    }
  }
  return make_error(ErrorCode::kNotFound, "no cgroup2 is mounted that shows " + path);
}

Result<std::uint64_t> own_cgroup_id() {
  const auto cgroup = contents("/proc/self/cgroup");
  const auto mountinfo = contents("/proc/self/mountinfo");
  if (!cgroup || !mountinfo) {
    return cgroup ? mountinfo.error() : cgroup.error();
  }
  const auto folder = cgroup_folder(*cgroup, *mountinfo);
  if (!folder) {
    return folder.error();
  }
  struct stat status {};
  if (::stat(folder->c_str(), &status) != 0) {
    return errno_error(*folder, errno);
  }
  return std::uint64_t{status.st_ino};
}

}  // namespace sidetrack::engine
