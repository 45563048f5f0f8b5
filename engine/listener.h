// SPDX-License-Identifier: Apache-2.0
// Opens the listeners of one pod on loopback inside its netns. Runs on a thread that is made for it
// and ends with it, so that no other thread is ever left in a foreign netns.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/pod.h"
#include "sidetrack/result.h"

namespace sidetrack::engine {

struct ListenerPlan {
  std::uint16_t port_low = 15900;
  std::uint16_t port_high = 15999;
  std::uint16_t count = 4;                    // per family
  std::vector<std::uint16_t> reserved_ports;  // the pod's own: never taken
};

// IPv4 listeners first. Those of a family are left out where the pod has no loopback of it. Errors:
// kFull (no port free), kPermission or kIo (the netns cannot be entered).
[[nodiscard]] Result<std::vector<Listener>> open_listeners(const Netns& netns,
                                                           const ListenerPlan& plan);

}  // namespace sidetrack::engine
