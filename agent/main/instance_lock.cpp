// SPDX-License-Identifier: Apache-2.0
#include "agent/main/instance_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

namespace sidetrack::agent {

namespace {

// Whatever is wrong with the folder, unless it is our rights, the option is wrong.
Error unusable(const std::string& state_dir, int error_number) {
  Error error = errno_error(
      fmt::format("--state-dir {}: no folder that files can be made in", state_dir), error_number);
  if (error.code != ErrorCode::kPermission) {
    error.code = ErrorCode::kInvalid;
  }
  return error;
}

}  // namespace

Result<InstanceLock> InstanceLock::acquire(const std::string& state_dir) {
  std::error_code error;
  // Only a folder that we make gets our mode: an existing one, /run say, is not ours to close.
  const bool made = std::filesystem::create_directories(state_dir, error);
  if (error || (made && chmod(state_dir.c_str(), 0700) != 0)) {
    return unusable(state_dir, error ? error.value() : errno);
  }
  const std::string path = state_dir + "/agent.lock";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) {
    return unusable(state_dir, errno);
  }
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    char pid[32] = {};
    const ssize_t size = pread(fd.get(), pid, sizeof(pid) - 1, 0);
    return make_error(ErrorCode::kBusy, fmt::format("another agent (process {}) holds {}",
                                                    size > 0 ? pid : "unknown", path));
  }
  const std::string pid = std::to_string(getpid());
  if (ftruncate(fd.get(), 0) != 0 ||
      pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return errno_error("lock " + path, errno);
  }
  return InstanceLock(std::move(fd));
}

}  // namespace sidetrack::agent
