// SPDX-License-Identifier: Apache-2.0
// What a large cluster has in its API server: pairs of a collection's path and an object to POST
// there. All counts are divided by ST_SCALE_CLUSTER (default 10; 1 is the full size).
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace sidetrack::tests {

using Objects = std::vector<std::pair<std::string, std::string>>;

[[nodiscard]] int scale_divisor();
[[nodiscard]] int scale_node_pods();  // 250
[[nodiscard]] int scale_services();   // 2,000
inline constexpr int kScaleEndpointsEach = 10;

// Of the i-th pod and the i-th service.
[[nodiscard]] std::string scale_namespace(int i);

// 100, of which all are in mode redirect.
[[nodiscard]] Objects scale_namespaces();
// 5,000, of which the first scale_node_pods() are on `node`.
[[nodiscard]] Objects scale_pods(const std::string& node);
[[nodiscard]] Objects scale_service_objects();
// One for each service.
[[nodiscard]] Objects scale_slices();

// PATCHes of those objects, the n-th of an endless row: where to, and what. In turn a slice, of
// which another endpoint is not ready, and a pod of the node, which gets another policy.
[[nodiscard]] std::pair<std::string, std::string> scale_change(int n);

}  // namespace sidetrack::tests
