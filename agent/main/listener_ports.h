// SPDX-License-Identifier: Apache-2.0
// Pods whose own connections may take every port that the embedded engine could listen on: while
// enough of them are open or in TIME_WAIT, an engine that comes to the pod, as at an upgrade, finds
// none. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "agent/admin/views.h"
#include "agent/reconcile/reconciler.h"

namespace sidetrack::agent {

// --listener-ports and --listeners-per-pod.
struct ListenerPorts {
  std::uint16_t low = 0;
  std::uint16_t high = 0;
  std::size_t per_pod = 0;
};

// A warning for each range of local ports that leaves fewer than `per_pod` ports out; it names the
// first of its pods.
[[nodiscard]] std::vector<admin::ProblemView> listener_port_problems(
    const std::vector<reconcile::PodStatus>& pods, const ListenerPorts& ports);

}  // namespace sidetrack::agent
