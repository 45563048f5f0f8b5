// SPDX-License-Identifier: Apache-2.0
// Walks over all TCP sockets of a network namespace, one after the other on a thread of their own.
// A walk takes the lock of every socket, and a thread of a pod may hold one for as long as a page
// fault takes: nobody waits for a walk, and one that does not end holds up other walks only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::adopt {

class Walks {
 public:
  // `walk`: in the namespace of the calling thread, for the socket of a cookie (0 = for none).
  explicit Walks(std::function<Result<void>(std::uint64_t socket_cookie)> walk);
  // Waits a second at most for the walk that is under way, which must not outlive what `walk` uses.
  ~Walks();
  Walks(const Walks&) = delete;
  Walks& operator=(const Walks&) = delete;

  // `netns` not valid: the own one. Failures are logged. False: too many wait already, and it is
  // left out, which is logged, too.
  bool start(UniqueFd netns, std::uint64_t socket_cookie);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;  // with the thread
};

}  // namespace sidetrack::adopt
