// SPDX-License-Identifier: Apache-2.0
// Events for people: what is said of a pod or the node, as the JSON of a core/v1 Event, and how
// often it may be said. Pure; the clock is the caller's.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "agent/kube/backoff.h"

namespace sidetrack::kube {

struct ClusterEvent {
  std::string kind;            // "Pod", "Namespace" or "Node"
  std::string namespace_name;  // of the pod; empty for a node
  std::string name;
  std::string uid;      // may be empty
  std::string reason;   // "SidetrackNotCaptured"
  std::string about;    // what of the object, such as a key of an annotation; may be empty
  std::string message;  // cut to 1,000 bytes
  bool warning = true;  // else normal
};

// Lets one event of the same object, reason and `about` pass in five minutes.
class EventLimiter {
 public:
  static constexpr std::chrono::minutes kInterval{5};
  static constexpr std::size_t kMaxRemembered = 4096;  // beyond it nothing passes

  [[nodiscard]] bool allow(const ClusterEvent& event, TimePoint now);

 private:
  std::map<std::string, TimePoint> last_;
};

// Where it is posted: events on nodes are in "default".
[[nodiscard]] std::string event_target(const ClusterEvent& event);
// `unix_ns` makes the name unique and is the time; `node` is who says it.
[[nodiscard]] std::string event_text(const ClusterEvent& event, const std::string& node,
                                     std::int64_t unix_ns);

}  // namespace sidetrack::kube
