// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/folder_watch.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "agent/kube/folder.h"

namespace sidetrack::kube {
namespace {

constexpr std::uint32_t kGone = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED;
// No IN_MODIFY: a file is read when its writer has closed it, never half-written.
constexpr std::uint32_t kMask = IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO |
                                IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

}  // namespace

FolderWatch::FolderWatch(std::filesystem::path path) : path_(std::move(path)) {}

Result<void> FolderWatch::watch() {
  if (!fd_.valid()) {
    fd_.reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!fd_.valid()) {
      return errno_error("inotify", errno);
    }
  }
  if (watch_ >= 0) {
    ::inotify_rm_watch(fd_.get(), watch_);
    watch_ = -1;
  }
  const int added = ::inotify_add_watch(fd_.get(), path_.c_str(), kMask);
  if (added < 0) {
    return errno_error("inotify watch", errno);
  }
  watch_ = added;
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0) {
    return errno_error("stat", errno);
  }
  device_ = status.st_dev;
  inode_ = status.st_ino;
  return {};
}

bool FolderWatch::is_current() const {
  struct stat status {};
  return watch_ >= 0 && ::stat(path_.c_str(), &status) == 0 && status.st_dev == device_ &&
         status.st_ino == inode_;
}

FolderEvents FolderWatch::read_events() {
  FolderEvents events;
  alignas(inotify_event) std::array<char, 16384> buffer{};
  for (;;) {
    const ssize_t count = ::read(fd_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return events;
    }
    std::size_t at = 0;
    while (at < static_cast<std::size_t>(count)) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
      note(*event, events);
      at += sizeof(inotify_event) + event->len;
    }
  }
}

void FolderWatch::note(const inotify_event& event, FolderEvents& events) const {
  if ((event.mask & IN_Q_OVERFLOW) != 0) {
    events.overflow = true;
    return;
  }
  if (event.wd != watch_) {
    return;  // left over from the folder that was watched before
  }
  if ((event.mask & kGone) != 0) {
    events.gone = true;
    return;
  }
  if (event.len == 0) {
    events.overflow = events.overflow ||
                      (event.mask & IN_ATTRIB) != 0;  // the folder's own rights: all may differ
    return;
  }
  std::string name(event.name);
  if ((event.mask & IN_CREATE) == 0) {
    events.created.erase(name);
    events.changed.insert(std::move(name));
    return;
  }
  // A link, symbolic or hard, is complete when it appears and is never closed.
  struct stat status {};
  const bool plain = ::lstat((path_ / name).c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
                     status.st_nlink == 1;
  (plain ? events.created : events.changed).insert(std::move(name));
}

}  // namespace sidetrack::kube
