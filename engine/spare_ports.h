// SPDX-License-Identifier: Apache-2.0
// Local ports beyond the pod's own range, for upstream connections to a destination to which that
// range is used up. An application that closes first leaves TIME_WAIT behind with plain TCP too,
// but there it sees EADDRNOTAVAIL in connect(); ours would show as a reset. The kernel takes a port
// in TIME_WAIT over for a socket that was bound to it (tcp_twsk_unique; safe with timestamps, RFC
// 6191), and a port that was ever bound is none that connect() picks by itself: so never ports of
// the range itself, they would be lost to the pod. No state; in the netns of the calling thread.
#pragma once

#include <cstdint>

#include "engine/address.h"

namespace sidetrack::engine {

struct SparePorts {
  std::uint32_t low = 1;
  std::uint32_t high = 0;  // below `low`: there are none
};

// What lies outside of `range_low` to `range_high`: above it, else just below.
[[nodiscard]] SparePorts spare_ports_beside(std::uint32_t range_low, std::uint32_t range_high);

// A non-blocking socket whose connect() to `destination` is under way from a spare port, or -1.
// `random` chooses the first port tried.
[[nodiscard]] int connect_from_spare_port(const SocketAddress& destination, std::uint32_t random);

}  // namespace sidetrack::engine
