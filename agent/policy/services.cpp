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
using Slices = std::vector<const kube::EndpointSlice*>;

// The endpoints behind one port of a service, of one family.
Candidates find_candidates(const Slices& slices, const std::string& port_name, bool v4) {
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

bool same(const SocketAddress& a, const SocketAddress& b) {
  return compare(a.address, b.address) == 0 && a.port == b.port;
}

std::vector<SocketAddress> sorted_addresses(const Candidates& candidates) {
  std::vector<SocketAddress> addresses;
  for (const Candidate& candidate : candidates) {
    addresses.push_back(candidate.address);
  }
  std::sort(addresses.begin(), addresses.end(), less);
  addresses.erase(std::unique(addresses.begin(), addresses.end(), same), addresses.end());
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

// The routes of one Service; two ports of the same number are one.
std::map<std::string, ServiceRoute> compile_service(const kube::Service& service,
                                                    const Slices& slices,
                                                    const std::string& node_name,
                                                    const std::string& zone) {
  std::map<std::string, ServiceRoute> routes;
  if (service.type == "ExternalName") {
    return routes;
  }
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
      routes.try_emplace(
          format_endpoint(*address, port.port),
          ServiceRoute{
              .front = {.address = *address, .port = port.port},
              .service = fmt::format("{}/{}:{}", service.metadata.namespace_name,
                                     service.metadata.name, port.port),
              .endpoints = choose(find_candidates(slices, port.name, v4), service, node_name, zone),
              .affinity_timeout_s = service.client_ip_affinity ? service.affinity_timeout_s : 0});
    }
  }
  return routes;
}

}  // namespace

bool same_route(const ServiceRoute& a, const ServiceRoute& b) {
  return same(a.front, b.front) && a.service == b.service &&
         a.affinity_timeout_s == b.affinity_timeout_s &&
         std::equal(a.endpoints.begin(), a.endpoints.end(), b.endpoints.begin(), b.endpoints.end(),
                    same);
}

Routes RouteTable::update(const kube::ObjectSet& objects, const kube::ObjectKeys& changes) {
  Keys services = changes.services;
  for (const std::string& key : changes.endpoint_slices) {
    index_slice(objects, key, services);
  }
  if (std::string zone = zone_of(objects, node_name_); zone != zone_) {
    zone_ = std::move(zone);
    for (const auto& [key, service] : objects.services) {
      services.insert(key);
    }
  }
  Keys fronts;
  for (const std::string& key : services) {
    compile(objects, key, fronts);
  }
  Routes changed;
  for (const std::string& front : fronts) {
    if (settle(front)) {
      const auto route = routes_.find(front);
      changed[front] = route == routes_.end() ? nullptr : route->second;
    }
  }
  return changed;
}

const ServiceRoute* RouteTable::find(const std::string& front) const {
  const auto found = routes_.find(front);
  return found == routes_.end() ? nullptr : found->second.get();
}

void RouteTable::index_slice(const kube::ObjectSet& objects, const std::string& key,
                             Keys& services) {
  if (const auto before = service_.extract(key)) {
    services.insert(before.mapped());
    const auto slices = slices_.find(before.mapped());
    slices->second.erase(key);
    if (slices->second.empty()) {
      slices_.erase(slices);
    }
  }
  if (const auto slice = objects.endpoint_slices.find(key);
      slice != objects.endpoint_slices.end()) {
    const std::string service =
        fmt::format("{}/{}", slice->second.metadata.namespace_name, slice->second.service_name);
    service_[key] = service;
    slices_[service].insert(key);
    services.insert(service);
  }
}

void RouteTable::compile(const kube::ObjectSet& objects, const std::string& key, Keys& fronts) {
  if (const auto before = fronts_.extract(key)) {
    for (const std::string& front : before.mapped()) {
      offers_.erase({front, key});
      fronts.insert(front);
    }
  }
  const auto service = objects.services.find(key);
  if (service == objects.services.end()) {
    return;
  }
  Slices slices;
  if (const auto own = slices_.find(key); own != slices_.end()) {
    for (const std::string& slice : own->second) {
      slices.push_back(&objects.endpoint_slices.at(slice));
    }
  }
  for (auto& [front, route] : compile_service(service->second, slices, node_name_, zone_)) {
    offers_[{front, key}] = std::make_shared<const ServiceRoute>(std::move(route));
    fronts_[key].insert(front);
    fronts.insert(front);
  }
}

bool RouteTable::settle(const std::string& front) {
  const auto offer = offers_.lower_bound({front, ""});
  if (offer == offers_.end() || offer->first.first != front) {
    return routes_.erase(front) != 0;
  }
  auto& route = routes_[front];
  if (route && same_route(*route, *offer->second)) {
    offer->second = route;  // those who know it keep it
    return false;
  }
  route = offer->second;
  return true;
}

}  // namespace sidetrack::policy
