// SPDX-License-Identifier: Apache-2.0
// What the engine holds of one pod: its netns and its listeners. Immutable once made, but for
// `gone`; shared by the control thread and all workers, so that the descriptors close when the last
// of them has let go.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/address.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engine {

struct Netns {
  UniqueFd fd;
  std::uint64_t cookie = 0;
  // The pod was deleted: nothing new may be opened in it. Set before the workers are told, so that
  // a connection that is handed from one worker to another meanwhile is dropped by whoever gets it.
  std::atomic<bool> gone{false};
  // Until then (CLOCK_MONOTONIC) upstream connections start from spare ports: connect() would
  // search the whole range, for milliseconds, only to find it used up again.
  std::atomic<std::int64_t> ports_used_until_ns{0};
};

struct Listener {
  UniqueFd fd;
  SocketAddress address;
  std::uint64_t cookie = 0;  // of the socket
  std::uint64_t id = 0;      // unique in this process, never used twice
};

struct Pod {
  std::shared_ptr<Netns> netns;
  std::vector<Listener> listeners;
};

}  // namespace sidetrack::engine
