// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "agent/dataplane/dataplane.h"
#include "sidetrack/unique_fd.h"

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

Result<std::string> cgroup_folder(std::uint64_t id, const std::string& near) {
  constexpr int kKernfsHandle = 0xfe;  // FILEID_KERNFS (linux/exportfs.h): the id is the handle
  alignas(file_handle) std::array<char, sizeof(file_handle) + sizeof(id)> bytes{};
  auto* handle = reinterpret_cast<file_handle*>(bytes.data());
  handle->handle_bytes = sizeof(id);
  handle->handle_type = kKernfsHandle;
  std::memcpy(handle->f_handle, &id, sizeof(id));
  const std::string what = "cgroup with id " + std::to_string(id);
  const UniqueFd mount(open(near.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const UniqueFd fd(open_by_handle_at(mount.get(), handle, O_PATH | O_CLOEXEC));
  if (!fd.valid()) {
    return errno_error(what, errno);
  }
  std::error_code error;
  const auto folder =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd.get()), error);
  if (error) {
    return errno_error(what, error.value());
  }
  return folder.string();
}

}  // namespace sidetrack::dataplane
