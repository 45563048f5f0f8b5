// SPDX-License-Identifier: Apache-2.0
// Which process wrote a file of a folder last, as fanotify tells those with CAP_SYS_ADMIN who see
// the writer's process id. Elsewhere nobody is known. For people to read, never to decide by: a
// process that has ended by then has no name. One thread.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>

#include "sidetrack/unique_fd.h"

namespace sidetrack::cni::install {

class Writers {
 public:
  Writers();
  // The folder of that path: it may be another one than before.
  void watch(const std::filesystem::path& folder) const;
  // Takes in what has happened. The sooner after it, the more processes are still there.
  void read();
  // "calico-node (pid 4711)"; empty: not known, or this process.
  [[nodiscard]] std::string of(ino_t inode) const;
  void forget() { writers_.clear(); }

 private:
  UniqueFd events_;
  std::map<ino_t, std::string> writers_;
};

}  // namespace sidetrack::cni::install
