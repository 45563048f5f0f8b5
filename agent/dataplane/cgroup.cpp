// SPDX-License-Identifier: Apache-2.0
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "agent/dataplane/dataplane.h"

namespace sidetrack::dataplane {

Result<std::uint64_t> cgroup_id(const std::string& dir) {
  struct statfs filesystem {};
  struct stat status {};
  if (statfs(dir.c_str(), &filesystem) != 0 || stat(dir.c_str(), &status) != 0) {
    return errno_error("cgroup " + dir, errno);
  }
  if (filesystem.f_type != CGROUP2_SUPER_MAGIC) {
    return make_error(
        ErrorCode::kInvalid,
        "cgroup " + dir + ": not on a cgroup2 file system (findmnt -t cgroup2 shows where it is)");
  }
  // On 64-bit kernels a kernfs inode number is the cgroup id (kernfs_id, fs/kernfs).
  return static_cast<std::uint64_t>(status.st_ino);
}

}  // namespace sidetrack::dataplane
