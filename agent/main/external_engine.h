// SPDX-License-Identifier: Apache-2.0
// Watches the listeners of an external engine (HAProxy, Envoy) and keeps its cell of st_engines
// true. Listeners that sockops saw being made are watched in the kernel and need us only to be
// found; older ones are put under watch where the kernel can. Else they are probed at every look,
// and count as lost one second after the last one (also when the agent is dead: on the safe side).
// That a proxy hangs is seen by its accept queue, as it has no heartbeat.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "agent/adopt/walks.h"
#include "agent/main/options.h"
#include "sidetrack/abi/types.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

// A listening TCP socket of the node.
struct NodeListener {
  st_addr address{};  // zero or ::ffff:0.0.0.0 = any
  std::uint16_t port = 0;
  bool v6_only = false;
  std::uint64_t cookie = 0;
  std::uint32_t backlog = 0;  // connections that wait for accept()
  std::uint32_t max_backlog = 0;
  std::uint64_t cgroup_id = 0;  // 0 = the kernel does not say
};

// All of them, by sock_diag.
[[nodiscard]] Result<std::vector<NodeListener>> list_listeners();

// Whether a connection to `address` ends at the listener.
[[nodiscard]] bool listens_on(const NodeListener& listener, const policy::SocketAddress& address);

// Tells a queue from which nothing is taken from one that is only never empty.
class AcceptQueue {
 public:
  // `arrived`: connections that ever entered it, read before `waiting`, those that are in it.
  // Returns whether some have waited for ST_HEARTBEAT_STALE_NS without one being accepted; from
  // then on, until all who waited then were: one that takes a connection now and then (at its own
  // limit) is to get no more meanwhile. Never of a queue that nobody was seen to enter: then what
  // is accepted is not known.
  bool look(std::uint64_t arrived, std::uint64_t waiting, std::uint64_t now_ns);

 private:
  std::int64_t accepted_ = 0;
  std::uint64_t since_ns_ = 0;  // when `accepted_` was seen to rise, or somebody to wait
  bool waited_ = false;
  bool stuck_ = false;
  std::int64_t well_at_ = 0;  // as many accepted: not stuck any more
};

class ExternalWatch {
 public:
  // Has a listener watched; called on a thread of its own.
  using Watch = std::function<Result<void>(std::uint64_t cookie)>;

  ExternalWatch(ExternalEngine engine, std::uint64_t engine_cgroup_id, volatile st_engine* cell,
                Watch watch);
  // One look, every 200 ms, and when a listener comes or goes. `now_ns`: CLOCK_MONOTONIC. `lost`:
  // the listener that is closing at this moment, which the kernel may still list.
  void look(std::uint64_t now_ns, std::uint64_t lost = 0);
  // Why it is not up, or what limits it; empty = nothing to say.
  [[nodiscard]] const std::string& problem() const { return problem_; }
  // "up", "down" or "full": as full counts one that hangs, too.
  [[nodiscard]] const char* state() const { return !up_ ? "down" : full_ ? "full" : "up"; }

 private:
  using Found = std::vector<const NodeListener*>;
  // Why listeners could not be put under watch, by cookie; a walk may outlive us.
  struct Failed {
    std::mutex mutex;
    std::map<std::uint64_t, std::string> why;
  };
  // A listener that was to be put under watch.
  struct Asked {
    bool under_way = false;  // or done: only a failure ends it
    std::uint64_t pause_ns = 0;
    std::uint64_t again_ns = 0;  // not before, should it fail
    std::string failure;         // the latest
  };
  // Several processes or threads may listen on one address (SO_REUSEPORT).
  Found find(const std::vector<NodeListener>& listeners, const policy::SocketAddress& address);
  // Which of them stands for all; none: null.
  [[nodiscard]] const NodeListener* choose(const Found& found) const;
  void look_at_queues(const Found& found, std::uint64_t arrived, std::uint64_t now_ns);
  // When the look began.
  [[nodiscard]] bool was_watched(std::uint64_t cookie) const;
  // Whether its close will be seen without us; asks for it, again later if that failed.
  bool watched(const NodeListener& listener, std::uint64_t now_ns);
  void ask(std::uint64_t cookie, std::uint64_t now_ns);
  void take_failures();
  void forget_asked(const std::vector<NodeListener>& listeners);

  ExternalEngine engine_;
  std::uint64_t engine_cgroup_id_;
  volatile st_engine* cell_;
  std::array<std::uint64_t, ST_MAX_WATCHED> watched_{};  // as the look began
  AcceptQueue queue_;
  std::shared_ptr<Failed> failed_;
  adopt::Walks walks_;
  std::map<std::uint64_t, Asked> asked_;  // by cookie
  bool up_ = false;
  bool full_ = false;
  std::string problem_ = "not looked at yet";
};

}  // namespace sidetrack::agent
