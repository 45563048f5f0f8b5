// SPDX-License-Identifier: Apache-2.0
// From what the source delivers to the kernel and the engines.

#include <fmt/format.h>

#include <cstdint>
#include <ctime>
#include <set>
#include <string>
#include <utility>

#include "agent/main/agent.h"
#include "agent/main/clocks.h"
#include "agent/main/problem_log.h"
#include "sidetrack/log/log.h"

namespace sidetrack::agent {

namespace {

void put(auto& mine, const auto& theirs, const std::set<std::string>& changed) {
  for (const std::string& key : changed) {
    if (const auto object = theirs.find(key); object != theirs.end()) {
      mine.insert_or_assign(key, object->second);
    } else {
      mine.erase(key);
    }
  }
}

}  // namespace

void Agent::take(const kube::Snapshot& snapshot) {
  kube::ObjectSet& mine = snapshot_.objects;
  const kube::ObjectSet& theirs = snapshot.objects;
  put(mine.namespaces, theirs.namespaces, snapshot.changes.namespaces);
  put(mine.pods, theirs.pods, snapshot.changes.pods);
  put(mine.nodes, theirs.nodes, snapshot.changes.nodes);
  for (auto& [front, route] : routes_.update(theirs, snapshot.changes)) {
    due_routes_.insert_or_assign(front, std::move(route));
  }
  snapshot_.problems = snapshot.problems;
  snapshot_.complete = snapshot.complete;
}

void Agent::on_snapshot(const kube::Snapshot& snapshot) {
  const std::uint64_t begin = clock_ns(CLOCK_MONOTONIC);
  policy_is_stale_ =
      policy_is_stale_ || !snapshot.changes.namespaces.empty() || !snapshot.changes.pods.empty();
  const bool pods_stay = !policy_is_stale_ && snapshot.problems == snapshot_.problems;
  take(snapshot);
  if (is_held()) {
    const bool has_news = snapshot_.problems != problems_;
    problems_ = snapshot_.problems;
    log_event(LogLevel::kError, "agent", "held",
              {{"problems", problems_.size()}, {"detail", held_reason(in_force())}});
    if (has_news) {
      log_problems("policy", problems_, StatusHas::kAll);
    }
    return;
  }
  if (synced_ && pods_stay) {
    apply_routes(begin);
  } else {
    apply(begin);
  }
}

bool Agent::is_held() const {
  if (synced_ || snapshot_.complete) {
    return false;
  }
  // What source kubernetes has on its disk is old, but it is whole.
  return kubernetes_ ? !kubernetes_->knows_all() : inherited_;
}

InForce Agent::in_force() const {
  if (!is_held()) {
    return InForce::kObjects;
  }
  return inherited_ ? InForce::kEarlierAgent : InForce::kNothing;
}

Result<void> Agent::open_doors() {
  if (synced_) {
    return {};
  }
  ST_TRY(listen_for_engines());
  return kubernetes_ ? kubernetes_->listen() : Result<void>();
}

void Agent::apply() {
  apply(clock_ns(CLOCK_MONOTONIC));
}

void Agent::apply(std::uint64_t begin_ns) {
  if (std::exchange(policy_is_stale_, false)) {
    resolution_ = policy::resolve(snapshot_.objects, node_settings_, resolution_.last_good);
  }
  std::vector<kube::Problem> problems = snapshot_.problems;
  problems.insert(problems.end(), resolution_.problems.begin(), resolution_.problems.end());
  const bool has_news = problems != problems_;
  problems_ = std::move(problems);
  engine_server_.update_routes(std::exchange(due_routes_, {}));
  std::vector<policy::PodIntent> pods = resolution_.pods;
  if (kubernetes_) {
    kubernetes_->fill(pods);
  }
  reconciler_.apply(std::move(pods), reconcile::Clock::now());
  if (auto opened = open_doors(); !opened) {
    failure_ = opened.error();
    context_.stop();
    return;
  }
  if (!synced_) {
    synced_ns_ = clock_ns(CLOCK_MONOTONIC);
  }
  if (!std::exchange(synced_, true) && files_) {
    audit();  // at once: from now on a row that differs is somebody's doing
  }
  if (kubernetes_) {
    kubernetes_->applied();
  }
  note_applied(begin_ns);
  if (has_news) {
    log_problems("policy", problems_, StatusHas::kAll);
  }
}

// Most changes of a large cluster are of endpoints: none of them concerns the kernel's tables.
void Agent::apply_routes(std::uint64_t begin_ns) {
  engine_server_.update_routes(std::exchange(due_routes_, {}));
  note_applied(begin_ns);
}

void Agent::note_applied(std::uint64_t begin_ns) {
  last_apply_s_ = static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begin_ns) / 1e9;
  metrics_.observe_policy_apply(last_apply_s_);
  log_event(LogLevel::kInfo, "agent", "applied",
            {{"pods", snapshot_.objects.pods.size()},
             {"routes", routes_.routes().size()},
             {"problems", problems_.size()},
             {"seconds", fmt::format("{:.4f}", last_apply_s_)}});
}

}  // namespace sidetrack::agent
