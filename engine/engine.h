// SPDX-License-Identifier: Apache-2.0
// Engine: the workers, the pods they serve and the routes they follow. Knows nothing of the agent,
// of BPF or of how it is configured. One thread calls its functions (routes() may be used from
// any).
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/links.h"
#include "engine/listener.h"
#include "engine/original_destination.h"
#include "engine/routes.h"
#include "engine/worker.h"
#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engine {

struct EngineSettings {
  unsigned threads = 1;
  std::size_t buffer_bytes = 256 * 1024;  // user-space memory that one connection may hold
};

// Sums over all workers.
struct EngineTotals {
  std::uint64_t connections = 0;
  std::uint64_t accepted = 0;
  std::uint64_t not_redirected = 0;
  std::uint64_t no_endpoints = 0;
  std::uint64_t connect_failed = 0;
  std::uint64_t endpoint_failures = 0;
  std::uint64_t accept_paused = 0;
  std::uint64_t resets = 0;
  std::uint64_t bytes_out = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t buffered = 0;
};

class Engine {
 public:
  // `original_destination` must outlive it.
  Engine(EngineSettings settings, const OriginalDestination& original_destination);
  ~Engine();

  [[nodiscard]] Result<void> start();

  // Opens listeners in the pod, unless it has some already that suit the plan. Others that the
  // engine had there are closed, their connections go on. The pod stays as it was if that fails.
  // The result is valid until the next call.
  [[nodiscard]] Result<const Pod*> add_pod(std::uint64_t netns_cookie, UniqueFd netns,
                                           ListenerPlan plan);
  // The same with the netns and plan of the last add_pod. kNotFound if there is no such pod.
  [[nodiscard]] Result<const Pod*> reopen_pod(std::uint64_t netns_cookie);
  void remove_pod(std::uint64_t netns_cookie, Cut cut);
  // Closes all listeners; connections go on.
  void remove_all_pods();

  [[nodiscard]] const Pod* find_pod(std::uint64_t netns_cookie) const;
  [[nodiscard]] std::vector<std::uint64_t> pods() const;
  [[nodiscard]] Routes& routes() { return routes_; }
  [[nodiscard]] Links& links() { return links_; }

  // Any thread.
  [[nodiscard]] EngineTotals totals() const;
  // CLOCK_MONOTONIC of the last turn of the worker that is furthest behind. Any thread.
  [[nodiscard]] std::int64_t slowest_turn_ns() const;
  // Descriptors in use by listeners and pods. Any thread.
  [[nodiscard]] std::size_t pod_files() const { return pod_files_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    std::shared_ptr<const Pod> pod;
    ListenerPlan plan;
  };

  [[nodiscard]] Result<const Pod*> serve(std::shared_ptr<Netns> netns, ListenerPlan plan);
  void count_files();

  EngineSettings settings_;
  Routes routes_;
  Links links_;
  std::unordered_map<std::uint64_t, Entry> pods_;
  std::atomic<std::size_t> pod_files_{0};
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace sidetrack::engine
