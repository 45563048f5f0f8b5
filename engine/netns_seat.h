// SPDX-License-Identifier: Apache-2.0
// NetnsSeat: which netns a worker thread is in. A thread keeps the netns alive that it sits in, so
// it must leave as soon as the pod goes. Used by the one thread that it belongs to.
#pragma once

#include "engine/pod.h"
#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engine {

class NetnsSeat {
 public:
  // Takes the calling thread's netns for home; call it on the worker's thread.
  [[nodiscard]] static Result<NetnsSeat> here();

  // Enters `netns` unless the thread is in it already. 0 or errno.
  [[nodiscard]] int enter(const Netns& netns);
  // Back home if the thread is in `netns`. 0 or errno.
  [[nodiscard]] int leave(const Netns& netns);

 private:
  UniqueFd home_;
  const Netns* current_ = nullptr;
};

}  // namespace sidetrack::engine
