// SPDX-License-Identifier: Apache-2.0
// From what a pod should be and what its engine listens on to its row in st_pods. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "agent/pods/netns.h"
#include "agent/policy/policy.h"
#include "agent/reconcile/ports.h"
#include "sidetrack/abi/types.h"

namespace sidetrack::reconcile {

enum class EngineKind { kEmbedded, kExternal, kNone };

struct RowInput {
  const policy::PodIntent& intent;
  const pods::NetnsFacts& facts;
  EngineKind engine = EngineKind::kEmbedded;
  bool external_v4 = false;  // the external engine has an address of this family
  bool external_v6 = false;
  std::uint32_t policy_id = 0;
  std::uint32_t namespace_slot = 0;
  std::optional<EngineListeners>
      listeners;                    // as the engine said last; nothing = it has not answered yet
  std::optional<st_pod> in_kernel;  // the row as it is now
};

// Of the pod's local ports, how many connections to one listener may hold: 80 %, at least 1.
[[nodiscard]] std::uint32_t port_budget(std::uint32_t port_low, std::uint32_t port_high);

// Without an answer of an engine the listeners of the row in the kernel stay (an agent that
// restarts changes nothing); a port that the kernel has cleared stays cleared until the engine
// reports another listener. While lo is down there are none: they are on loopback.
[[nodiscard]] st_pod build_row(const RowInput& input);

[[nodiscard]] bool same_row(const st_pod& left, const st_pod& right);

// What the kernel's row has otherwise than it was written, in words; listeners that the kernel saw
// close are not that. Empty: nothing.
[[nodiscard]] std::string difference(const st_pod& written, const st_pod& in_kernel);

// Listeners of the row that the kernel saw close.
[[nodiscard]] bool has_lost_listener(const st_pod& row);
// Whether a redirected connection has anywhere to go.
[[nodiscard]] bool has_listener(const st_pod& row);

}  // namespace sidetrack::reconcile
