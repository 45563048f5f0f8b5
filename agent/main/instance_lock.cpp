// SPDX-License-Identifier: Apache-2.0
#include "agent/main/instance_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

namespace sidetrack::agent {

namespace {

constexpr char kSeparator = '\t';

// Whatever is wrong with the folder, unless it is our rights or its room, the option is wrong.
Error unusable(const std::string& state_dir, int error_number) {
  if (error_number == ENOSPC || error_number == EDQUOT) {
    return errno_error(
        fmt::format(
            "--state-dir {}: its file system is full: make room there, or take a folder elsewhere",
            state_dir),
        error_number);
  }
  Error error = errno_error(
      fmt::format("--state-dir {}: no folder that files can be made in", state_dir), error_number);
  if (error.code != ErrorCode::kPermission) {
    error.code = ErrorCode::kInvalid;
  }
  return error;
}

}  // namespace

InstanceLock::Holder InstanceLock::holder(const std::string& state_dir) {
  std::ifstream file(state_dir + "/agent.lock");
  Holder holder;
  std::getline(file, holder.process, kSeparator);
  std::getline(file, holder.http, kSeparator);
  std::getline(file, holder.pin_dir);
  return holder;
}

Result<InstanceLock> InstanceLock::acquire(const std::string& state_dir, const Holder& self) {
  std::error_code error;
  // Only a folder that we make gets our mode: an existing one, /run say, is not ours to close.
  const bool made = std::filesystem::create_directories(state_dir, error);
  if (error || (made && chmod(state_dir.c_str(), 0700) != 0)) {
    return unusable(state_dir, error ? error.value() : errno);
  }
  // Whoever has the lock makes sockets beside it.
  if (access(state_dir.c_str(), W_OK) != 0) {
    return unusable(state_dir, errno);
  }
  const std::string path = state_dir + "/agent.lock";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) {
    return unusable(state_dir, errno);
  }
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    const std::string process = holder(state_dir).process;
    return make_error(ErrorCode::kBusy, fmt::format("another agent (process {}) holds {}",
                                                    process.empty() ? "unknown" : process, path));
  }
  const std::string text =
      fmt::format("{}{}{}{}{}\n", getpid(), kSeparator, self.http, kSeparator, self.pin_dir);
  if (ftruncate(fd.get(), 0) != 0 ||
      pwrite(fd.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return unusable(state_dir, errno);
  }
  return InstanceLock(std::move(fd));
}

}  // namespace sidetrack::agent
