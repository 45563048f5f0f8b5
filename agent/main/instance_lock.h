// SPDX-License-Identifier: Apache-2.0
// One agent per state folder: an flock on STATE_DIR/agent.lock, which the kernel releases however
// the holder ends.
#pragma once

#include <cstdint>
#include <string>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::agent {

class InstanceLock {
 public:
  // What an agent that holds it says to those that wait. Empty: one that says nothing of it.
  struct Holder {
    std::string process;
    std::string http;  // as in --http
    std::string pin_dir;
  };
  // kBusy: another agent holds it; the message names its process. Makes the folder (0700) if
  // needed. `self` is what we say as its holder, but for the process.
  [[nodiscard]] static Result<InstanceLock> acquire(const std::string& state_dir,
                                                    const Holder& self = {});
  [[nodiscard]] static Holder holder(const std::string& state_dir);

 private:
  explicit InstanceLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace sidetrack::agent
