// SPDX-License-Identifier: Apache-2.0
// FolderWatch: inotify on one folder, as a descriptor to wait on and a parser of what can be read
// from it. It does not wait and reads no file; not thread-safe.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <set>
#include <string>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

struct inotify_event;

namespace sidetrack::kube {

// What happened since the last call, by name of the file in the folder.
struct FolderEvents {
  std::set<std::string>
      changed;  // closed after writing, moved in or out, deleted, made as a link, other rights
  std::set<std::string>
      created;  // made and perhaps still being written: `changed` follows when it is closed
  bool overflow = false;  // the kernel dropped events
  bool gone = false;      // the folder was moved, deleted or unmounted: watch() again
};

class FolderWatch {
 public:
  explicit FolderWatch(std::filesystem::path path);

  // Starts to watch the folder of that path, leaving the one watched before. Errors: kNotFound,
  // kPermission, kFull (the limits of fs.inotify).
  Result<void> watch();
  // Whether the path still leads to the folder that is watched (a link to it may have been changed:
  // no event tells).
  [[nodiscard]] bool is_current() const;
  // Non-blocking, readable when there are events; -1 until watch() has succeeded once. Stays the
  // same then.
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] FolderEvents read_events();

 private:
  void note(const inotify_event& event, FolderEvents& events) const;

  std::filesystem::path path_;
  UniqueFd fd_;
  int watch_ = -1;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace sidetrack::kube
