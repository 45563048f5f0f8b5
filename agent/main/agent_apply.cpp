// SPDX-License-Identifier: Apache-2.0
// From what the source delivers to the kernel and the engines.

#include <fmt/format.h>

#include <cstdint>
#include <ctime>
#include <utility>

#include "agent/main/agent.h"
#include "agent/main/clocks.h"
#include "agent/main/problem_log.h"
#include "sidetrack/log/log.h"

namespace sidetrack::agent {

// Most changes are of pods: what routes are made of is large, and rarely another.
void Agent::take(const kube::Snapshot& snapshot) {
  const auto put = [](auto& mine, const auto& theirs) {
    const bool differs = mine != theirs;
    if (differs) {
      mine = theirs;
    }
    return differs;
  };
  kube::ObjectSet& mine = snapshot_.objects;
  const kube::ObjectSet& theirs = snapshot.objects;
  put(mine.namespaces, theirs.namespaces);
  put(mine.pods, theirs.pods);
  const bool services = put(mine.services, theirs.services);
  const bool slices = put(mine.endpoint_slices, theirs.endpoint_slices);
  const bool nodes = put(mine.nodes, theirs.nodes);
  routes_are_stale_ = routes_are_stale_ || services || slices || nodes;
  snapshot_.problems = snapshot.problems;
  snapshot_.complete = snapshot.complete;
}

void Agent::on_snapshot(const kube::Snapshot& snapshot) {
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
  apply();
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
  const std::uint64_t begin = clock_ns(CLOCK_MONOTONIC);
  policy::Resolution resolution = policy::resolve(snapshot_.objects, node_settings_, last_good_);
  last_good_ = std::move(resolution.last_good);
  std::vector<kube::Problem> problems = snapshot_.problems;
  problems.insert(problems.end(), resolution.problems.begin(), resolution.problems.end());
  const bool has_news = problems != problems_;
  problems_ = std::move(problems);
  if (std::exchange(routes_are_stale_, false)) {
    routes_ = policy::compile_services(snapshot_.objects, options_.node_name);
    engine_server_.set_services(routes_);
  }
  if (kubernetes_) {
    kubernetes_->fill(resolution.pods);
  }
  reconciler_.apply(std::move(resolution.pods), reconcile::Clock::now());
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
  last_apply_s_ = static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begin) / 1e9;
  metrics_.observe_policy_apply(last_apply_s_);
  log_event(LogLevel::kInfo, "agent", "applied",
            {{"pods", snapshot_.objects.pods.size()},
             {"services", snapshot_.objects.services.size()},
             {"problems", problems_.size()},
             {"seconds", fmt::format("{:.4f}", last_apply_s_)}});
  if (has_news) {
    log_problems("policy", problems_, StatusHas::kAll);
  }
}

}  // namespace sidetrack::agent
