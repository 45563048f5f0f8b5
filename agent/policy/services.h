// SPDX-License-Identifier: Apache-2.0
// From Services and EndpointSlices to the table that the engine routes by. Pure. What kube-proxy
// would do is the measure: ready endpoints, terminating ones that still serve when no ready one is
// left, internalTrafficPolicy Local, topology hints.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "agent/kube/model.h"
#include "agent/policy/policy.h"

namespace sidetrack::policy {

// One (cluster address, TCP port) and where its connections may go from this node. No endpoints =
// refuse.
struct ServiceRoute {
  SocketAddress front;
  std::string service;                   // "namespace/name:port"
  std::vector<SocketAddress> endpoints;  // eligible now, sorted
  std::uint32_t affinity_timeout_s = 0;  // 0 = no session affinity
};

// Keyed by format_endpoint(front); `node_name` selects local endpoints, the Node object of that
// name its zone.
[[nodiscard]] std::map<std::string, ServiceRoute> compile_services(const kube::ObjectSet& objects,
                                                                   const std::string& node_name);

}  // namespace sidetrack::policy
