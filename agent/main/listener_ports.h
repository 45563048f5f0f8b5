// SPDX-License-Identifier: Apache-2.0
// Pods whose own connections may take the ports that the embedded engine could listen on: while
// enough of them are open or in TIME_WAIT, an engine that comes to the pod, as at an upgrade, finds
// too few, or none. Pure.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "agent/admin/views.h"
#include "agent/kube/model.h"
#include "agent/reconcile/reconciler.h"

namespace sidetrack::agent {

// --listener-ports and --listeners-per-pod.
struct ListenerPorts {
  std::uint16_t low = 0;
  std::uint16_t high = 0;
  std::size_t per_pod = 0;
};

// A warning for each range of local ports that leaves too few out for two engines; it names the
// first of its pods.
[[nodiscard]] std::vector<admin::ProblemView> listener_port_problems(
    const std::vector<reconcile::PodStatus>& pods, const ListenerPorts& ports);

// Tells each such pod once, for the log.
class ListenerPortWatch {
 public:
  // Those that were not among them at the last look.
  [[nodiscard]] std::vector<kube::Problem> look(const std::vector<reconcile::PodStatus>& pods,
                                                const ListenerPorts& ports);

 private:
  std::set<std::uint64_t> told_;  // netns cookies
};

}  // namespace sidetrack::agent
