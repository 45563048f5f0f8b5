// SPDX-License-Identifier: Apache-2.0
// The resources that are watched, and the request lines of the API for them. Pure.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sidetrack::kube {

// In the order of kube::Object's alternatives.
enum class Resource : std::uint8_t { kNamespaces, kPods, kServices, kEndpointSlices, kNodes };
inline constexpr std::size_t kResourceCount = 5;
inline constexpr std::array<Resource, kResourceCount> kResources{
    Resource::kNamespaces, Resource::kPods, Resource::kServices, Resource::kEndpointSlices,
    Resource::kNodes};

[[nodiscard]] constexpr std::size_t index_of(Resource resource) {
  return static_cast<std::size_t>(resource);
}

struct ResourceNames {
  std::string_view plural;       // "pods", as in RBAC and metrics
  std::string_view kind;         // "Pod"
  std::string_view api_version;  // "v1"
  std::string_view path;         // "/api/v1/pods"
};
[[nodiscard]] const ResourceNames& names_of(Resource resource);

// One request of a reflector.
struct ListWatchRequest {
  enum class Kind : std::uint8_t { kList, kWatch, kWatchList };
  Kind kind = Kind::kList;
  std::string resource_version;     // opaque; "" = the most recent, "0" = whatever a cache has
  std::string continue_token;       // the next page of a list
  std::uint32_t limit = 0;          // of a list; 0 = none
  std::chrono::seconds timeout{0};  // of a watch: the server ends it then
  bool operator==(const ListWatchRequest&) const = default;
};

// "/api/v1/pods?fieldSelector=spec.nodeName%3Dworker-1&watch=1&..."; `node` limits pods and nodes.
[[nodiscard]] std::string target_of(Resource resource, const std::string& node,
                                    const ListWatchRequest& request);

// Every byte but letters, digits and "-._~" as %XX.
[[nodiscard]] std::string percent_encode(std::string_view text);

}  // namespace sidetrack::kube
