// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/services.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/policy/policy.h"
#include "agent/policy/prefix.h"

namespace sidetrack::policy {
namespace {

struct Candidate {
  SocketAddress address;
  const kube::Endpoint* endpoint = nullptr;
};
using Candidates = std::vector<Candidate>;
using SlicesByService =
    std::map<std::string, std::vector<const kube::EndpointSlice*>>;  // "namespace/service"

SlicesByService index_slices(const kube::ObjectSet& objects) {
  SlicesByService index;
  for (const auto& [key, slice] : objects.endpoint_slices) {
    index[fmt::format("{}/{}", slice.metadata.namespace_name, slice.service_name)].push_back(
        &slice);
  }
  return index;
}

// The endpoints behind one port of a service, of one family.
Candidates find_candidates(const std::vector<const kube::EndpointSlice*>& slices,
                           const std::string& port_name, bool v4) {
  Candidates candidates;
  for (const kube::EndpointSlice* slice : slices) {
    const auto port = std::find_if(slice->ports.begin(), slice->ports.end(),
                                   [&port_name](const kube::EndpointPort& candidate) {
                                     return candidate.protocol == "TCP" && candidate.port != 0 &&
                                            candidate.name == port_name;
                                   });
    if (slice->address_type != (v4 ? "IPv4" : "IPv6") || port == slice->ports.end()) {
      continue;
    }
    for (const kube::Endpoint& endpoint : slice->endpoints) {
      // The addresses of one endpoint stand for the same thing; kube-proxy uses the first.
      const auto address = endpoint.addresses.empty() ? Result<st_addr>(Error{})
                                                      : parse_address(endpoint.addresses.front());
      if (address && (st_addr_is_v4(&*address) != 0) == v4) {
        candidates.push_back(
            {.address = {.address = *address, .port = port->port}, .endpoint = &endpoint});
      }
    }
  }
  return candidates;
}

Candidates keep(const Candidates& candidates, const auto& wanted) {
  Candidates kept;
  std::copy_if(candidates.begin(), candidates.end(), std::back_inserter(kept),
               [&wanted](const Candidate& candidate) { return wanted(*candidate.endpoint); });
  return kept;
}

bool is_ready(const kube::Endpoint& endpoint) {
  return endpoint.ready && !endpoint.terminating;
}
bool is_draining(const kube::Endpoint& endpoint) {
  return endpoint.serving && endpoint.terminating;
}

bool is_for_zone(const kube::Endpoint& endpoint, const std::string& zone) {
  return std::find(endpoint.hint_zones.begin(), endpoint.hint_zones.end(), zone) !=
         endpoint.hint_zones.end();
}

// Hints count only if they are complete and leave something: else a zone could lose its endpoints.
Candidates prefer_zone(Candidates ready, const std::string& zone) {
  const bool complete = std::none_of(ready.begin(), ready.end(), [](const Candidate& candidate) {
    return candidate.endpoint->hint_zones.empty();
  });
  if (zone.empty() || !complete) {
    return ready;
  }
  Candidates near =
      keep(ready, [&zone](const kube::Endpoint& endpoint) { return is_for_zone(endpoint, zone); });
  return near.empty() ? ready : near;
}

bool less(const SocketAddress& a, const SocketAddress& b) {
  const int order = compare(a.address, b.address);
  return order != 0 ? order < 0 : a.port < b.port;
}

std::vector<SocketAddress> sorted_addresses(const Candidates& candidates) {
  std::vector<SocketAddress> addresses;
  for (const Candidate& candidate : candidates) {
    addresses.push_back(candidate.address);
  }
  std::sort(addresses.begin(), addresses.end(), less);
  const auto equal = [](const SocketAddress& a, const SocketAddress& b) {
    return !less(a, b) && !less(b, a);
  };
  addresses.erase(std::unique(addresses.begin(), addresses.end(), equal), addresses.end());
  return addresses;
}

// Which of the candidates kube-proxy would use on this node.
std::vector<SocketAddress> choose(Candidates candidates, const kube::Service& service,
                                  const std::string& node_name, const std::string& zone) {
  if (service.internal_traffic_local) {
    candidates = keep(candidates, [&node_name](const kube::Endpoint& endpoint) {
      return endpoint.node_name == node_name;
    });
  }
  Candidates ready = keep(candidates, is_ready);
  if (ready.empty()) {
    return sorted_addresses(keep(candidates, is_draining));
  }
  return sorted_addresses(service.internal_traffic_local ? ready
                                                         : prefer_zone(std::move(ready), zone));
}

std::string zone_of(const kube::ObjectSet& objects, const std::string& node_name) {
  const auto node = objects.nodes.find(node_name);
  if (node == objects.nodes.end()) {
    return {};
  }
  const auto label = node->second.metadata.labels.find("topology.kubernetes.io/zone");
  return label == node->second.metadata.labels.end() ? std::string() : label->second;
}

}  // namespace

std::map<std::string, ServiceRoute> compile_services(const kube::ObjectSet& objects,
                                                     const std::string& node_name) {
  std::map<std::string, ServiceRoute> routes;
  const SlicesByService slices = index_slices(objects);
  const std::string zone = zone_of(objects, node_name);
  for (const auto& [key, service] : objects.services) {
    if (service.type == "ExternalName") {
      continue;
    }
    const std::string name =
        fmt::format("{}/{}", service.metadata.namespace_name, service.metadata.name);
    const auto found = slices.find(name);
    for (const std::string& text : service.cluster_addresses) {
      const auto address =
          parse_address(text);  // a headless service says None here, which is no address
      if (!address) {
        continue;
      }
      const bool v4 = st_addr_is_v4(&*address) != 0;
      for (const kube::ServicePort& port : service.ports) {
        if (port.protocol != "TCP" || port.port == 0) {
          continue;
        }
        ServiceRoute route{
            .front = {.address = *address, .port = port.port},
            .service = fmt::format("{}:{}", name, port.port),
            .endpoints = {},
            .affinity_timeout_s = service.client_ip_affinity ? service.affinity_timeout_s : 0};
        if (found != slices.end()) {
          route.endpoints =
              choose(find_candidates(found->second, port.name, v4), service, node_name, zone);
        }
        routes.try_emplace(format_endpoint(*address, port.port), std::move(route));
      }
    }
  }
  return routes;
}

}  // namespace sidetrack::policy
