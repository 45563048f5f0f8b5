// SPDX-License-Identifier: Apache-2.0
// From Services and EndpointSlices to the table that the engine routes by. Pure. What kube-proxy
// would do is the measure: ready endpoints, terminating ones that still serve when no ready one is
// left, internalTrafficPolicy Local, topology hints.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
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
[[nodiscard]] bool same_route(const ServiceRoute& a, const ServiceRoute& b);

// Keyed by format_endpoint(front). Shared by all who know a route, so that 20,000 endpoints exist
// once; in a list of changes nullptr means that there is none any more.
using Routes = std::map<std::string, std::shared_ptr<const ServiceRoute>>;

// The routes of all Services, brought up to date by what has changed: they depend on the objects as
// they are now alone, not on the way there.
class RouteTable {
 public:
  // `node_name` selects local endpoints, the Node object of that name its zone.
  explicit RouteTable(std::string node_name) : node_name_(std::move(node_name)) {}

  // `changes`: in what `objects` differ from those of the call before; the first time from none.
  // Returns the routes that are others now.
  Routes update(const kube::ObjectSet& objects, const kube::ObjectKeys& changes);

  [[nodiscard]] const Routes& routes() const { return routes_; }
  // nullptr: no Service has this address and port.
  [[nodiscard]] const ServiceRoute* find(const std::string& front) const;

 private:
  using Keys = std::set<std::string>;
  using Offer = std::pair<std::string, std::string>;  // a front, and the key of a Service

  // Puts the slice under its Service of now, and names it and the one before in `services`.
  void index_slice(const kube::ObjectSet& objects, const std::string& key, Keys& services);
  // Compiles the Service again; its fronts, of before and now, go to `fronts`.
  void compile(const kube::ObjectSet& objects, const std::string& key, Keys& fronts);
  // Chooses among those who offer it; whether its route is another one now.
  bool settle(const std::string& front);

  std::string node_name_;
  std::string zone_;
  std::map<std::string, Keys> slices_;          // by the key of their Service
  std::map<std::string, std::string> service_;  // of a slice
  std::map<std::string, Keys> fronts_;          // of a Service
  // Where several Services have the same front, the first of them by key has the route.
  std::map<Offer, std::shared_ptr<const ServiceRoute>> offers_;
  Routes routes_;
};

}  // namespace sidetrack::policy
