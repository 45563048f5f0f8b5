// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/other_mesh.h"

#include <array>
#include <string_view>

namespace sidetrack::policy {
namespace {

struct Sign {
  const char* key;
  const char* value;  // null: any
};
// Written by the injectors, not by people.
constexpr std::array<Sign, 4> kSidecars = {
    Sign{"sidecar.istio.io/status", nullptr},
    {"linkerd.io/proxy-version", nullptr},
    {"kuma.io/sidecar-injected", "true"},
    {"consul.hashicorp.com/connect-inject-status", "injected"}};
constexpr const char* kAmbientStatus = "ambient.istio.io/redirection";
constexpr const char* kDataplaneMode = "istio.io/dataplane-mode";

std::string_view value_of(const std::map<std::string, std::string>& map, const char* key) {
  const auto found = map.find(key);
  return found == map.end() ? std::string_view() : std::string_view(found->second);
}

}  // namespace

std::string find_sidecar(const kube::Pod& pod) {
  for (const Sign& sign : kSidecars) {
    const auto found = pod.metadata.annotations.find(sign.key);
    if (found != pod.metadata.annotations.end() &&
        (sign.value == nullptr || found->second == sign.value)) {
      return std::string("annotation ") + sign.key;
    }
  }
  return pod.mesh_container.empty() ? "" : "container " + pod.mesh_container;
}

std::string find_ambient(const kube::Pod& pod, const kube::Namespace* of_namespace) {
  if (value_of(pod.metadata.annotations, kAmbientStatus) == "enabled") {
    return std::string("annotation ") + kAmbientStatus;
  }
  const std::string_view own = value_of(pod.metadata.labels, kDataplaneMode);
  if (own == "ambient") {
    return std::string("label ") + kDataplaneMode;
  }
  const bool inherits = own.empty() && of_namespace != nullptr;
  return inherits && value_of(of_namespace->metadata.labels, kDataplaneMode) == "ambient"
             ? std::string("label ") + kDataplaneMode + " of its namespace"
             : "";
}

}  // namespace sidetrack::policy
