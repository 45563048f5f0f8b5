// SPDX-License-Identifier: Apache-2.0
// Network namespaces whose new sockets are still to be widened (docs/adr/0014): a walk over all
// sockets of one, one namespace at a time. One thread; time is passed in.
#pragma once

#include <cstdint>
#include <set>

#include "agent/adopt/pair.h"
#include "agent/adopt/ports.h"

namespace sidetrack::adopt {

class Widening {
 public:
  explicit Widening(Sockets& sockets) : sockets_(sockets) {}

  void add(std::uint64_t netns_cookie) { narrow_.insert(netns_cookie); }
  // Walks the next one, if it is time.
  void tick(Clock::time_point now);

 private:
  Sockets& sockets_;
  std::set<std::uint64_t> narrow_;
  Clock::time_point due_{};
  std::uint64_t walked_ = 0;  // the last one
};

}  // namespace sidetrack::adopt
