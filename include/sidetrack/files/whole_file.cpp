// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/files/whole_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "sidetrack/unique_fd.h"

namespace sidetrack::files {
namespace {

constexpr std::string_view kPrefix = ".sidetrack-";
constexpr std::string_view kSuffix = ".tmp";

// Takes the temporary file away unless it was renamed.
class Leftover {
 public:
  explicit Leftover(std::string path) : path_(std::move(path)) {}
  Leftover(const Leftover&) = delete;
  Leftover& operator=(const Leftover&) = delete;
  ~Leftover() {
    if (!path_.empty()) {
      ::unlink(path_.c_str());
    }
  }
  void keep() { path_.clear(); }

 private:
  std::string path_;
};

Result<void> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno_error("write", errno);
    }
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return {};
}

Result<void> sync_folder(const std::filesystem::path& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return errno_error("sync " + folder.string(), errno);
  }
  return {};
}

Result<void> expect(const std::filesystem::path& path, const std::string& expected) {
  const auto now = read_file(path);
  const bool absent = !now && now.error().code == ErrorCode::kNotFound;
  if (expected.empty() ? absent : now && now->text == expected) {
    return {};
  }
  return make_error(ErrorCode::kBusy, path.string() + " was changed by somebody else meanwhile");
}

Result<void> fill(int fd, std::string_view text, const Replacement& how) {
  // The owner first: chown takes set-id bits away.
  if (how.owner && ::fchown(fd, how.owner->uid, how.owner->gid) != 0) {
    return errno_error("chown", errno);
  }
  if (::fchmod(fd, how.mode) != 0) {
    return errno_error("chmod", errno);
  }
  ST_TRY(write_all(fd, text));
  if (::fsync(fd) != 0) {
    return errno_error("sync", errno);
  }
  return {};
}

}  // namespace

Result<FileText> read_file(const std::filesystem::path& path, std::size_t limit) {
  const std::string what = "read " + path.string();
  // Not blocking: it may be a pipe.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    return errno_error(what, errno);
  }
  struct stat status {};
  struct stat link {};
  if (::fstat(fd.get(), &status) != 0 || ::lstat(path.c_str(), &link) != 0) {
    return errno_error(what, errno);
  }
  if (!S_ISREG(status.st_mode)) {
    return make_error(ErrorCode::kInvalid, what + ": not a regular file");
  }
  FileText file{.mode = status.st_mode & 07777U,
                .uid = status.st_uid,
                .gid = status.st_gid,
                .inode = status.st_ino,
                .is_link = S_ISLNK(link.st_mode)};
  const auto size = static_cast<std::size_t>(status.st_size);
  // One byte more than there should be: a file that grows is seen.
  file.text.resize(std::min(size, limit) + 1);
  std::size_t used = 0;
  for (;;) {
    const ssize_t got = ::read(fd.get(), file.text.data() + used, file.text.size() - used);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return errno_error(what, errno);
    }
    used += static_cast<std::size_t>(got);
    if (used > limit) {
      return make_error(ErrorCode::kInvalid,
                        what + ": larger than " + std::to_string(limit) + " bytes");
    }
    if (got == 0) {
      file.text.resize(used);
      return file;
    }
    if (used == file.text.size()) {
      file.text.resize(std::min(used * 2, limit + 1));
    }
  }
}

Result<void> replace_file(const std::filesystem::path& path, std::string_view text,
                          const Replacement& how) {
  const std::string what = "write " + path.string();
  const std::filesystem::path folder = path.parent_path();
  std::string temporary = (folder / kPrefix).string() + "XXXXXX" + std::string(kSuffix);
  const UniqueFd fd(::mkostemps(temporary.data(), static_cast<int>(kSuffix.size()), O_CLOEXEC));
  if (!fd.valid()) {
    return errno_error(what, errno);
  }
  Leftover leftover(temporary);
  if (const auto filled = fill(fd.get(), text, how); !filled) {
    return filled.error().within(what);
  }
  if (how.expected) {
    ST_TRY(expect(path, *how.expected));
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return errno_error(what, errno);
  }
  leftover.keep();
  return sync_folder(folder);
}

Result<void> remove_file(const std::filesystem::path& path) {
  if (::unlink(path.c_str()) != 0) {
    return errno == ENOENT ? Result<void>() : errno_error("remove " + path.string(), errno);
  }
  return sync_folder(path.parent_path());
}

void remove_leftovers(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kSuffix)) {
      ::unlink(entry.path().c_str());
    }
  }
}

}  // namespace sidetrack::files
