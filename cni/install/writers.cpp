// SPDX-License-Identifier: Apache-2.0
#include "cni/install/writers.h"

#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <fstream>

namespace sidetrack::cni::install {
namespace {

// A process gives itself any name.
std::string name_of(pid_t pid) {
  std::string name;
  std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/comm"), name);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return name.empty() ? "" : name + " (pid " + std::to_string(pid) + ")";
}

}  // namespace

// read() opens what was written: that must not wait for a pipe's other end or a lease's holder.
Writers::Writers()
    : events_(::fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK,
                              O_RDONLY | O_NONBLOCK | O_LARGEFILE | O_CLOEXEC)) {}

void Writers::watch(const std::filesystem::path& folder) const {
  if (events_.valid()) {
    ::fanotify_mark(events_.get(), FAN_MARK_ADD | FAN_MARK_ONLYDIR,
                    FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, AT_FDCWD, folder.c_str());
  }
}

void Writers::read() {
  alignas(fanotify_event_metadata) std::array<char, 4096> buffer{};
  for (ssize_t left = 0; (left = ::read(events_.get(), buffer.data(), buffer.size())) > 0;) {
    const auto* event = reinterpret_cast<const fanotify_event_metadata*>(buffer.data());
    for (; FAN_EVENT_OK(event, left); event = FAN_EVENT_NEXT(event, left)) {
      const UniqueFd file(event->fd);
      struct stat status {};
      if (file.valid() && ::fstat(file.get(), &status) == 0) {
        writers_[status.st_ino] = event->pid == ::getpid() ? "" : name_of(event->pid);
      }
    }
  }
}

std::string Writers::of(ino_t inode) const {
  const auto found = writers_.find(inode);
  return found == writers_.end() ? "" : found->second;
}

}  // namespace sidetrack::cni::install
