// SPDX-License-Identifier: Apache-2.0
// The agent and its engines: who may register, and what they tell.

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "agent/main/agent.h"
#include "agent/main/clocks.h"
#include "sidetrack/log/log.h"

namespace sidetrack::agent {

namespace {

// An engine that was killed leaves a beat that is fresh for a while.
bool has_ended(std::uint64_t pid) {
  return pid != 0 && kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH;
}

double beat_age_s(std::uint64_t beat_ns) {
  const double now_ns = static_cast<double>(clock_ns(CLOCK_MONOTONIC));
  return beat_ns == 0 ? -1 : (now_ns - static_cast<double>(beat_ns)) / 1e9;
}

}  // namespace

engines::Callbacks Agent::engine_callbacks() {
  return {
      .on_hello = [this](engines::SessionId, std::int64_t pid,
                         const std::string&) { return welcome(pid); },
      .on_listening =
          [this](engines::SessionId, std::uint64_t cookie, const engines::PodListeners&) {
            reconciler_.on_listening(cookie, reconcile::Clock::now());
            if (kubernetes_) {
              kubernetes_->settle();
            }
          },
      .on_failed =
          [this](engines::SessionId, std::uint64_t cookie, const std::string& reason) {
            log_event(LogLevel::kWarn, "engine", "listen_failed",
                      {{"netns_cookie", cookie}, {"reason", reason}});
            reconciler_.on_listen_failed(cookie, reason);
          },
      .on_draining =
          [this](engines::SessionId) { reconciler_.on_engines_changed(reconcile::Clock::now()); },
      .on_link =
          [this](engines::SessionId, const engines::Link& link) {
            fast_path_.on_link({.client_leg = link.client_cookie,
                                .server_leg = link.server_cookie,
                                .index = link.index});
          },
      .on_lost =
          [this](engines::SessionId) {
            forget_lost_engines();
            reconciler_.on_engines_changed(reconcile::Clock::now());
          },
      .open_netns = [this](std::uint64_t cookie) -> Result<UniqueFd> {
        const auto path = reconciler_.netns_path(cookie);
        if (!path) {
          return make_error(ErrorCode::kNotFound, "no pod has this netns any more");
        }
        return pods::open_netns(*path);
      },
  };
}

Result<engines::Welcome> Agent::welcome(std::int64_t pid) {
  std::string cgroup_dir = cgroups_.engine_dir;
  if (cgroups_.engine_in_container) {
    auto container = container_cgroup(options_, cgroups_, pid);
    ST_TRY(container);
    cgroup_dir = std::move(*container);
  } else if (pid > 0) {
    ST_TRY(move_to_cgroup(cgroup_dir, pid));
  }
  auto cgroup_id = dataplane_->attach_engine(cgroup_dir);
  ST_TRY(cgroup_id);
  volatile st_engine* cells = dataplane_->engine_cells();
  std::uint16_t slot = 0;
  for (std::uint16_t i = ST_EXTERNAL_ENGINE_SLOT + 1; i < ST_MAX_ENGINES; ++i) {
    if (cells[i].pid == static_cast<std::uint64_t>(pid) && pid > 0) {
      slot = i;  // it was here before this agent was: rows in the kernel name its cell
      break;
    }
    const bool beats = st_beat_is_fresh(cells[i].beat_ns, clock_ns(CLOCK_MONOTONIC)) != 0;
    // A hung engine keeps its cell: the kernel may still compare numbers in its part of st_slots.
    const bool is_free = cells[i].pid == 0 ? !beats : has_ended(cells[i].pid);
    if (slot == 0 && !slots_.contains(i) && is_free) {
      slot = i;
    }
  }
  if (slot == 0) {
    return make_error(ErrorCode::kFull, "too many engines are registered at this agent");
  }
  cells[slot].pid = static_cast<std::uint64_t>(pid);
  slots_.insert(slot);
  log_event(LogLevel::kInfo, "engine", "registered", {{"pid", pid}, {"slot", slot}});
  return engines::Welcome{.slot = slot,
                          .engines_fd = dataplane_->engines_fd(),
                          .slots_fd = fast_path_.slots_fd(),
                          .cgroup_id = *cgroup_id,
                          .listener_port_low = options_.listener_port_low,
                          .listener_port_high = options_.listener_port_high,
                          .listeners_per_pod = options_.listeners_per_pod};
}

void Agent::forget_lost_engines() {
  std::set<std::uint16_t> alive;
  for (const engines::SessionInfo& session : engine_server_.sessions()) {
    alive.insert(session.slot);
  }
  for (const std::uint16_t slot : slots_) {
    if (!alive.contains(slot)) {
      log_event(LogLevel::kWarn, "engine", "lost", {{"slot", slot}});
    }
  }
  slots_ = std::move(alive);
}

// The kernel goes by their beats.
std::map<std::uint16_t, std::int64_t> Agent::unregistered_engines() const {
  std::map<std::uint16_t, std::int64_t> pids;
  if (options_.engine != reconcile::EngineKind::kEmbedded) {
    return pids;
  }
  const volatile st_engine* cells = dataplane_->engine_cells();
  const auto sessions = engine_server_.sessions();
  for (std::uint16_t slot = ST_EXTERNAL_ENGINE_SLOT + 1; slot < ST_MAX_ENGINES; ++slot) {
    const bool registered =
        std::any_of(sessions.begin(), sessions.end(),
                    [&](const engines::SessionInfo& session) { return session.slot == slot; });
    if (!registered && !has_ended(cells[slot].pid) &&
        st_beat_is_fresh(cells[slot].beat_ns, clock_ns(CLOCK_MONOTONIC)) != 0) {
      pids[slot] = static_cast<std::int64_t>(cells[slot].pid);
    }
  }
  return pids;
}

std::vector<admin::EngineView> Agent::engine_views() {
  std::vector<admin::EngineView> views;
  const volatile st_engine* cells = dataplane_->engine_cells();
  if (external_) {
    views.push_back(
        {.kind = "external", .state = external_->state(), .detail = external_->problem()});
  }
  for (const engines::SessionInfo& session : engine_server_.sessions()) {
    const double age = beat_age_s(cells[session.slot].beat_ns);
    admin::EngineView view{.kind = "embedded",
                           .state = "up",
                           .pid = session.pid,
                           .last_beat_age_s = age,
                           .connections = session.connections};
    if (age < 0 || age >= static_cast<double>(ST_HEARTBEAT_STALE_NS) / 1e9) {
      view.state = "down";
      view.detail = "no heartbeat: the process is stopped or stuck";
    } else if (session.draining) {
      view.state = "draining";
    } else if (cells[session.slot].full != 0) {
      view.state = "full";
      view.detail = "90 % of its open files are used";
    }
    views.push_back(view);
  }
  for (const auto& [slot, pid] : unregistered_engines()) {
    views.push_back({.kind = "embedded",
                     .state = cells[slot].full != 0 ? "full" : "up",
                     .detail = "it has not registered with this agent yet",
                     .pid = pid,
                     .last_beat_age_s = beat_age_s(cells[slot].beat_ns)});
  }
  if (views.empty()) {
    const bool none = options_.engine == reconcile::EngineKind::kNone;
    views.push_back(
        {.kind = none ? "none" : "embedded",
         .state = none ? "none" : "down",
         .detail = none ? "" : "no engine is connected to " + options_.state_dir + "/engine.sock"});
  }
  return views;
}

// Not before the desired state is known: an engine that is told of no pods leaves those that it
// has.
Result<void> Agent::listen_for_engines() {
  if (options_.engine != reconcile::EngineKind::kEmbedded) {
    return {};
  }
  return engine_server_.listen(options_.state_dir + "/engine.sock");
}

}  // namespace sidetrack::agent
