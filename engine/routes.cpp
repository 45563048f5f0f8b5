// SPDX-License-Identifier: Apache-2.0
#include "engine/routes.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <utility>

namespace sidetrack::engine {
namespace {

// Affinities of clients that do not come back are swept when there are this many.
constexpr std::size_t kAffinitySweep = 4096;

bool contains(const Tried& tried, const Endpoint* endpoint) {
  return std::find(tried.begin(), tried.end(), endpoint) != tried.end();
}

bool avoided(const Endpoint& endpoint, std::int64_t now_ns) {
  return endpoint.avoid_until_ns.load(std::memory_order_relaxed) > now_ns;
}

// The same on every run and in every build. Inputs that differ in one bit differ in half of them
// after it.
std::uint64_t mixed(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

std::uint64_t weight(std::uint64_t client, const SocketAddress& endpoint) {
  std::uint64_t halves[2];
  static_assert(sizeof halves == sizeof endpoint.address.bytes);
  std::memcpy(halves, endpoint.address.bytes, sizeof halves);
  return mixed(mixed(mixed(mixed(client) ^ halves[0]) ^ halves[1]) ^ endpoint.port);
}

// The endpoint of the lowest rank; of equals the first from `start` on. Null: none left.
template <typename Rank>
std::shared_ptr<Endpoint> first_by(const std::vector<std::shared_ptr<Endpoint>>& endpoints,
                                   std::size_t start, const Tried& tried, Rank rank_of) {
  std::shared_ptr<Endpoint> best;
  decltype(rank_of(*best)) best_rank{};
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    const std::shared_ptr<Endpoint>& candidate = endpoints[(start + i) % endpoints.size()];
    if (contains(tried, candidate.get())) {
      continue;
    }
    const auto rank = rank_of(*candidate);
    if (!best || rank < best_rank) {
      best = candidate;
      best_rank = rank;
    }
  }
  return best;
}

}  // namespace

void mark_failed(Endpoint& endpoint, std::int64_t now_ns) {
  endpoint.avoid_until_ns.store(now_ns + kEndpointAvoidNs, std::memory_order_relaxed);
}

Route::Route(RouteSpec spec, Route* previous) : spec_(std::move(spec)) {
  std::unordered_map<SocketAddress, std::shared_ptr<Endpoint>, SocketAddressHash> known;
  if (previous != nullptr) {
    for (const auto& endpoint : previous->endpoints_) {
      known.emplace(endpoint->address, endpoint);
    }
    const std::lock_guard lock(previous->mutex_);
    if (spec_.affinity_timeout_s != 0) {
      affinities_ = previous->affinities_;
    }
  }
  endpoints_.reserve(spec_.endpoints.size());
  for (const SocketAddress& address : spec_.endpoints) {
    if (const auto found = known.find(address); found != known.end()) {
      endpoints_.push_back(found->second);
    } else {
      endpoints_.push_back(std::make_shared<Endpoint>());
      endpoints_.back()->address = address;
    }
  }
}

std::shared_ptr<Endpoint> Route::choose(std::uint64_t client, std::int64_t now_ns,
                                        std::uint32_t random, const Tried& tried) {
  if (spec_.affinity_timeout_s == 0) {
    return least_connections(now_ns, random, tried);
  }
  std::shared_ptr<Endpoint> chosen = affine(client, now_ns, tried);
  if (!chosen) {
    chosen = own_of(client, now_ns, tried);
  }
  if (chosen) {
    remember(client, chosen->address, now_ns);
  }
  return chosen;
}

bool Route::has_untried(const Tried& tried) const {
  return std::any_of(endpoints_.begin(), endpoints_.end(),
                     [&](const auto& endpoint) { return !contains(tried, endpoint.get()); });
}

std::shared_ptr<Endpoint> Route::affine(std::uint64_t client, std::int64_t now_ns,
                                        const Tried& tried) {
  SocketAddress address;
  {
    const std::lock_guard lock(mutex_);
    const auto found = affinities_.find(client);
    if (found == affinities_.end() || found->second.expires_ns <= now_ns) {
      return nullptr;
    }
    address = found->second.endpoint;
  }
  for (const auto& endpoint : endpoints_) {
    if (endpoint->address == address) {
      return contains(tried, endpoint.get()) || avoided(*endpoint, now_ns) ? nullptr : endpoint;
    }
  }
  return nullptr;
}

std::shared_ptr<Endpoint> Route::least_connections(std::int64_t now_ns, std::uint32_t random,
                                                   const Tried& tried) const {
  return first_by(endpoints_, random, tried, [now_ns](const Endpoint& endpoint) {
    return std::pair{avoided(endpoint, now_ns),
                     endpoint.connections.load(std::memory_order_relaxed)};
  });
}

std::shared_ptr<Endpoint> Route::own_of(std::uint64_t client, std::int64_t now_ns,
                                        const Tried& tried) const {
  return first_by(endpoints_, 0, tried, [&](const Endpoint& endpoint) {
    return std::pair{avoided(endpoint, now_ns), weight(client, endpoint.address)};
  });
}

void Route::remember(std::uint64_t client, const SocketAddress& endpoint, std::int64_t now_ns) {
  const std::lock_guard lock(mutex_);
  if (affinities_.size() >= kAffinitySweep) {
    std::erase_if(affinities_, [&](const auto& item) { return item.second.expires_ns <= now_ns; });
  }
  affinities_[client] =
      Affinity{.endpoint = endpoint,
               .expires_ns = now_ns + std::int64_t{spec_.affinity_timeout_s} * 1'000'000'000};
}

void Routes::set(RouteSpec spec) {
  const SocketAddress front = spec.front;
  const std::unique_lock lock(mutex_);
  std::shared_ptr<Route>& slot = routes_[front];
  slot = std::make_shared<Route>(std::move(spec), slot.get());
}

void Routes::remove(const SocketAddress& front) {
  const std::unique_lock lock(mutex_);
  routes_.erase(front);
}

void Routes::keep_only(const std::vector<SocketAddress>& fronts) {
  const std::unordered_set<SocketAddress, SocketAddressHash> kept(fronts.begin(), fronts.end());
  const std::unique_lock lock(mutex_);
  std::erase_if(routes_, [&](const auto& item) { return !kept.contains(item.first); });
}

std::shared_ptr<Route> Routes::find(const SocketAddress& front) const {
  const std::shared_lock lock(mutex_);
  const auto found = routes_.find(front);
  return found == routes_.end() ? nullptr : found->second;
}

std::size_t Routes::size() const {
  const std::shared_lock lock(mutex_);
  return routes_.size();
}

}  // namespace sidetrack::engine
