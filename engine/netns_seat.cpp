// SPDX-License-Identifier: Apache-2.0
#include "engine/netns_seat.h"

#include <fcntl.h>
#include <sched.h>

#include <cerrno>

namespace sidetrack::engine {

Result<NetnsSeat> NetnsSeat::here() {
  NetnsSeat seat;
  seat.home_ = UniqueFd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!seat.home_.valid()) {
    return errno_error("open /proc/thread-self/ns/net", errno);
  }
  return seat;
}

int NetnsSeat::enter(const Netns& netns) {
  if (current_ == &netns) {
    return 0;
  }
  if (::setns(netns.fd.get(), CLONE_NEWNET) != 0) {
    return errno;
  }
  current_ = &netns;
  return 0;
}

int NetnsSeat::leave(const Netns& netns) {
  if (current_ != &netns) {
    return 0;
  }
  if (::setns(home_.get(), CLONE_NEWNET) != 0) {
    return errno;
  }
  current_ = nullptr;
  return 0;
}

}  // namespace sidetrack::engine
