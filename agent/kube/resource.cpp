// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/resource.h"

#include <fmt/format.h>

namespace sidetrack::kube {
namespace {

constexpr std::array<ResourceNames, kResourceCount> kNames{
    ResourceNames{"namespaces", "Namespace", "v1", "/api/v1/namespaces"},
    ResourceNames{"pods", "Pod", "v1", "/api/v1/pods"},
    ResourceNames{"services", "Service", "v1", "/api/v1/services"},
    ResourceNames{"endpointslices", "EndpointSlice", "discovery.k8s.io/v1",
                  "/apis/discovery.k8s.io/v1/endpointslices"},
    ResourceNames{"nodes", "Node", "v1", "/api/v1/nodes"},
};

}  // namespace

const ResourceNames& names_of(Resource resource) {
  return kNames.at(index_of(resource));
}

std::string percent_encode(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      encoded.push_back(c);
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

std::string target_of(Resource resource, const std::string& node, const ListWatchRequest& request) {
  using Asks = ListWatchRequest::Kind;
  std::string target(names_of(resource).path);
  char separator = '?';
  const auto add = [&](std::string_view key, std::string_view value) {
    target += fmt::format("{}{}={}", separator, key, percent_encode(value));
    separator = '&';
  };
  if (resource == Resource::kPods) {
    add("fieldSelector", "spec.nodeName=" + node);
  } else if (resource == Resource::kNodes) {
    add("fieldSelector", "metadata.name=" + node);
  }
  if (request.kind != Asks::kList) {
    add("watch", "1");
    add("allowWatchBookmarks", "true");
    add("timeoutSeconds", std::to_string(request.timeout.count()));
  }
  if (request.kind == Asks::kWatchList) {
    add("sendInitialEvents", "true");
    add("resourceVersionMatch", "NotOlderThan");
  }
  if (request.limit != 0) {
    add("limit", std::to_string(request.limit));
  }
  // The token stands for the version of the page before.
  if (!request.continue_token.empty()) {
    add("continue", request.continue_token);
  } else if (!request.resource_version.empty()) {
    add("resourceVersion", request.resource_version);
    if (request.kind == Asks::kList && request.resource_version != "0") {
      add("resourceVersionMatch", "NotOlderThan");
    }
  }
  return target;
}

}  // namespace sidetrack::kube
