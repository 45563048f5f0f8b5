// SPDX-License-Identifier: Apache-2.0
// Where connections to a Service address go: least connections over the ready endpoints, session
// affinity by client netns (also across engines: one that remembers nothing chooses for a client
// what any other would, from the same endpoints), passive avoidance of endpoints that just failed.
// No I/O and no clock: time comes in as nanoseconds of any steady clock. Safe from all threads;
// counts of an endpoint live on when its Service changes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/address.h"

namespace sidetrack::engine {

inline constexpr std::int64_t kEndpointAvoidNs = 5'000'000'000;

struct Endpoint {
  SocketAddress address;
  std::atomic<std::uint32_t> connections{0};
  std::atomic<std::int64_t> avoid_until_ns{0};
};

struct RouteSpec {
  SocketAddress front;
  std::string service;  // "namespace/name:port"
  std::vector<SocketAddress> endpoints;
  std::uint32_t affinity_timeout_s = 0;  // 0 = none
};

// Endpoints that one connection has already tried.
using Tried = std::vector<const Endpoint*>;

class Route {
 public:
  // Takes the endpoints (and affinities) that `previous` also has from it, counts and all.
  Route(RouteSpec spec, Route* previous);

  // The endpoint for a new connection of `client` (its netns cookie); `random` breaks ties of those
  // that have no affinity. Null: none left.
  [[nodiscard]] std::shared_ptr<Endpoint> choose(std::uint64_t client, std::int64_t now_ns,
                                                 std::uint32_t random, const Tried& tried);
  // Whether choose() would still find one.
  [[nodiscard]] bool has_untried(const Tried& tried) const;
  [[nodiscard]] const RouteSpec& spec() const { return spec_; }

 private:
  struct Affinity {
    SocketAddress endpoint;
    std::int64_t expires_ns = 0;
  };

  [[nodiscard]] std::shared_ptr<Endpoint> affine(std::uint64_t client, std::int64_t now_ns,
                                                 const Tried& tried);
  [[nodiscard]] std::shared_ptr<Endpoint> least_connections(std::int64_t now_ns,
                                                            std::uint32_t random,
                                                            const Tried& tried) const;
  // By a hash of client and endpoint: every client has an order of its own of all endpoints, and
  // one that goes or comes moves only the clients that had or will have it first.
  [[nodiscard]] std::shared_ptr<Endpoint> own_of(std::uint64_t client, std::int64_t now_ns,
                                                 const Tried& tried) const;
  void remember(std::uint64_t client, const SocketAddress& endpoint, std::int64_t now_ns);

  RouteSpec spec_;
  std::vector<std::shared_ptr<Endpoint>> endpoints_;
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, Affinity> affinities_;
};

// The endpoint did not accept a connection: others are preferred for a while.
void mark_failed(Endpoint& endpoint, std::int64_t now_ns);

class Routes {
 public:
  void set(RouteSpec spec);
  void remove(const SocketAddress& front);
  // Removes every route whose front is not in `fronts`.
  void keep_only(const std::vector<SocketAddress>& fronts);
  // Null: not a Service address.
  [[nodiscard]] std::shared_ptr<Route> find(const SocketAddress& front) const;
  [[nodiscard]] std::size_t size() const;

 private:
  mutable std::shared_mutex mutex_;
  std::unordered_map<SocketAddress, std::shared_ptr<Route>, SocketAddressHash> routes_;
};

}  // namespace sidetrack::engine
