// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace sidetrack::engine {
namespace {

bool suits(const Pod& pod, const ListenerPlan& old_plan, const ListenerPlan& plan) {
  const auto allowed = [&](const Listener& listener) {
    const std::uint16_t port = listener.address.port;
    const auto& reserved = plan.reserved_ports;
    return port >= plan.port_low && port <= plan.port_high &&
           std::find(reserved.begin(), reserved.end(), port) == reserved.end();
  };
  return old_plan.count == plan.count &&
         std::all_of(pod.listeners.begin(), pod.listeners.end(), allowed);
}

}  // namespace

Engine::Engine(EngineSettings settings, const OriginalDestination& original_destination)
    : settings_(settings) {
  for (unsigned i = 0; i < std::max(settings.threads, 1U); ++i) {
    workers_.push_back(
        std::make_unique<Worker>(WorkerSettings{.index = i,
                                                .buffer_bytes = settings.buffer_bytes,
                                                .original_destination = &original_destination,
                                                .routes = &routes_,
                                                .links = &links_}));
  }
}

Engine::~Engine() {
  for (const auto& worker :
       workers_) {  // all threads, before any worker goes: they hand connections to each other
    worker->stop();
  }
}

Result<void> Engine::start() {
  for (const auto& worker : workers_) {
    ST_TRY(worker->start(workers_));
  }
  return {};
}

Result<const Pod*> Engine::add_pod(std::uint64_t netns_cookie, UniqueFd netns, ListenerPlan plan) {
  if (const auto found = pods_.find(netns_cookie);
      found != pods_.end() && suits(*found->second.pod, found->second.plan, plan)) {
    found->second.plan = std::move(plan);
    return found->second.pod.get();
  }
  auto shared = std::make_shared<Netns>();
  shared->fd = std::move(netns);
  shared->cookie = netns_cookie;
  return serve(std::move(shared), std::move(plan));
}

Result<const Pod*> Engine::reopen_pod(std::uint64_t netns_cookie) {
  const auto found = pods_.find(netns_cookie);
  if (found == pods_.end()) {
    return make_error(ErrorCode::kNotFound, "no such pod");
  }
  return serve(found->second.pod->netns, found->second.plan);
}

Result<const Pod*> Engine::serve(std::shared_ptr<Netns> netns, ListenerPlan plan) {
  Result<std::vector<Listener>> listeners = open_listeners(*netns, plan);
  if (!listeners) {
    return listeners.error();
  }
  auto pod = std::make_shared<Pod>();
  pod->netns = std::move(netns);
  pod->listeners = std::move(*listeners);
  Entry& entry = pods_[pod->netns->cookie];
  entry.pod = std::move(pod);
  entry.plan = std::move(plan);
  count_files();
  for (const auto& worker : workers_) {
    worker->add_pod(entry.pod);
  }
  return entry.pod.get();
}

void Engine::remove_pod(std::uint64_t netns_cookie, Cut cut) {
  if (const auto found = pods_.find(netns_cookie); found != pods_.end()) {
    if (cut == Cut::kYes) {
      found->second.pod->netns->gone.store(true, std::memory_order_release);
    }
    pods_.erase(found);
    count_files();
  }
  for (const auto& worker : workers_) {
    worker->remove_pod(netns_cookie, cut);
  }
}

void Engine::remove_all_pods() {
  for (const std::uint64_t cookie : pods()) {
    remove_pod(cookie, Cut::kNo);
  }
}

const Pod* Engine::find_pod(std::uint64_t netns_cookie) const {
  const auto found = pods_.find(netns_cookie);
  return found == pods_.end() ? nullptr : found->second.pod.get();
}

std::vector<std::uint64_t> Engine::pods() const {
  std::vector<std::uint64_t> cookies;
  cookies.reserve(pods_.size());
  for (const auto& [cookie, entry] : pods_) {
    cookies.push_back(cookie);
  }
  return cookies;
}

void Engine::count_files() {
  std::size_t files = 0;
  for (const auto& [cookie, entry] : pods_) {
    files += 1 + entry.pod->listeners.size();
  }
  pod_files_.store(files, std::memory_order_relaxed);
}

EngineTotals Engine::totals() const {
  EngineTotals totals;
  for (const auto& worker : workers_) {
    const Counters& counters = worker->counters();
    totals.connections += counters.connections.get();
    totals.accepted += counters.accepted.get();
    totals.not_redirected += counters.not_redirected.get();
    totals.no_endpoints += counters.no_endpoints.get();
    totals.connect_failed += counters.connect_failed.get();
    totals.endpoint_failures += counters.endpoint_failures.get();
    totals.accept_paused += counters.accept_paused.get();
    totals.resets += counters.resets.get();
    totals.bytes_out += counters.bytes_out.get();
    totals.bytes_in += counters.bytes_in.get();
    totals.buffered += counters.buffered.get();
  }
  return totals;
}

std::int64_t Engine::slowest_turn_ns() const {
  std::int64_t slowest = std::numeric_limits<std::int64_t>::max();
  for (const auto& worker : workers_) {
    slowest = std::min(slowest, worker->counters().turned_ns.load(std::memory_order_relaxed));
  }
  return slowest;
}

}  // namespace sidetrack::engine
