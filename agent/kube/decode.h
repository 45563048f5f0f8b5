// SPDX-License-Identifier: Apache-2.0
// From a Kubernetes object as JSON to the structs of model.h; used for files and for the API alike.
// Strict about the fields that Sidetrack reads, blind to all others. Pure: no I/O, never throws;
// the JSON text itself is bounded by whoever parsed it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/kube/model.h"

namespace sidetrack::kube {

inline constexpr std::size_t kMaxObjectBytes = 4 * 1024 * 1024;
inline constexpr std::size_t kMaxObjectDepth = 64;

using Object = std::variant<Namespace, Pod, Service, EndpointSlice, Node>;

// "Pod/shop/web-0", "Node/worker-1".
[[nodiscard]] std::string object_name(const Object& object);

// Puts `object` into its map, over one of the same name. False if there was one.
bool put_object(ObjectSet& set, Object object);

// A field that cannot be used (the object is left out) or, with `warning`, something that was
// passed over.
struct Issue {
  std::string object;  // "Pod/shop/web-0"; the kind alone where the name is not known; may be empty
  std::string pointer;  // JSON pointer from the decoded value, "/spec/ports/0/port"
  std::string value;    // the offending text, cut to 200 bytes
  std::string reason;
  bool warning = false;
};

struct DecodedObject {
  Object object;
  std::string pointer;  // "" or "/items/3"
};

inline constexpr std::size_t kMaxIssues = 1000;

struct Decoded {
  std::vector<DecodedObject> objects;
  std::vector<Issue> issues;  // about kMaxIssues at most; an error among them if there was one
};

// Decodes one object, a v1 List, or a list as the API server answers it (PodList: its items name no
// kind). ConfigMaps are passed over silently, other kinds with a warning.
[[nodiscard]] Decoded decode(const nlohmann::json& value);

// The names that Kubernetes allows (RFC 1123 subdomain). "/" would make the keys of ObjectSet
// ambiguous.
[[nodiscard]] bool is_kubernetes_name(std::string_view name);

}  // namespace sidetrack::kube
