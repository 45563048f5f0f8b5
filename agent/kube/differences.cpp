// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/differences.h"

namespace sidetrack::kube {
namespace {

std::set<std::string> different(const auto& before, const auto& now) {
  std::set<std::string> keys;
  for (const auto& [key, object] : before) {
    const auto found = now.find(key);
    if (found == now.end() || found->second != object) {
      keys.insert(key);
    }
  }
  for (const auto& [key, object] : now) {
    if (!before.contains(key)) {
      keys.insert(key);
    }
  }
  return keys;
}

}  // namespace

ObjectKeys differences(const ObjectSet& before, const ObjectSet& now) {
  return {.namespaces = different(before.namespaces, now.namespaces),
          .pods = different(before.pods, now.pods),
          .services = different(before.services, now.services),
          .endpoint_slices = different(before.endpoint_slices, now.endpoint_slices),
          .nodes = different(before.nodes, now.nodes)};
}

}  // namespace sidetrack::kube
