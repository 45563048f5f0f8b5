// SPDX-License-Identifier: Apache-2.0
// What adoption needs from the outside, as interfaces: sockets in their network namespaces, and
// what is known of pods. The agent plugs in the real ones, tests an in-memory kernel.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sidetrack/abi/fast.h"

namespace sidetrack::adopt {

class Sockets {
 public:
  virtual ~Sockets() = default;
  // Runs each request in the network namespace of its `self`; those of one namespace in this order.
  // One answer each.
  // ST_FAST_GONE also when the namespace is gone, ST_FAST_INTERNAL when the kernel refused to run
  // the program.
  virtual std::vector<st_fast_reason> run(const std::vector<st_adopt_request>& requests) = 0;
  // Tells whoever watches this socket that it is readable, if it is; and has TCP try again to send
  // each FIN of the namespace that waits.
  virtual void nudge(std::uint64_t netns_cookie, std::uint64_t socket_cookie) = 0;
  // Gives all adopted sockets of this namespace the buffer that they need.
  virtual void widen(std::uint64_t netns_cookie) = 0;
  // Ends the connection of this socket as an RST would. False: it could not be done.
  virtual bool destroy(std::uint64_t netns_cookie, std::uint64_t socket_cookie) = 0;
};

struct Pod {
  st_pod row{};
  std::string workload;                   // "namespace/Kind/name" of its controller, or of itself
  st_fast_reason demoted = ST_FAST_NONE;  // by the sentinel, as the kernel has it
  bool unseen = false;  // what it does that the sentinel could not have seen is not known yet
};

class Pods {
 public:
  virtual ~Pods() = default;
  // Nothing for a namespace that is no pod's.
  virtual std::optional<Pod> pod(std::uint64_t netns_cookie) = 0;
};

}  // namespace sidetrack::adopt
