// SPDX-License-Identifier: Apache-2.0
// What a person should know of and could mend, as the agent sees it.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <iterator>
#include <utility>

#include "agent/main/agent.h"
#include "agent/main/listener_ports.h"
#include "agent/main/problem_log.h"

namespace sidetrack::agent {

namespace {

constexpr double kRepairShown_s = 600;

std::string how_to_start(const Options& options) {
  if (options.engine != reconcile::EngineKind::kExternal) {
    return "start sidetrack-engine or look at its log";
  }
  std::string places;
  for (const policy::SocketAddress& at : {options.external.v4, options.external.v6}) {
    if (at.port != 0) {
      places += (places.empty() ? "" : " and ") + policy::format_endpoint(at.address, at.port);
    }
  }
  return "start the proxy at " + places + ", in --engine-cgroup";
}

ListenerPorts listener_ports_of(const Options& options) {
  return {.low = options.listener_port_low,
          .high = options.listener_port_high,
          .per_pod = options.listeners_per_pod};
}

void add_kubernetes_problems(const admin::KubernetesView& kubernetes,
                             std::vector<admin::ProblemView>& views) {
  if (!kubernetes.cni_problem.empty()) {
    views.push_back({.severity = "error",
                     .object = "cni",
                     .key = "not_installed",
                     .reason = kubernetes.cni_problem,
                     .action = "pods are enrolled a moment after they start until the CNI "
                               "configuration has sidetrack-cni; see docs/cni.md"});
  }
  for (const admin::WatchView& watch : kubernetes.resources) {
    if (!watch.problem.empty()) {
      views.push_back({.severity = "warning",
                       .object = "api",
                       .key = watch.resource,
                       .reason = watch.problem,
                       .action = "what is known stays in force; it is asked again by itself"});
    }
  }
}

admin::ProblemView drift_view(const reconcile::PodStatus& pod) {
  return {.severity = "error",
          .object = "Pod/" + pod.intent.namespace_name + "/" + pod.intent.name,
          .key = pod.reason,
          .reason = "wanted, but not enrolled: " + (pod.detail.empty() ? pod.reason : pod.detail),
          .action = "sidetrackctl pods shows its state; it is tried again by itself"};
}

}  // namespace

std::vector<admin::ProblemView> Agent::problem_views(
    const std::vector<reconcile::PodStatus>& pods,
    const std::vector<admin::EngineView>& engines) const {
  std::vector<admin::ProblemView> views;
  if (is_held()) {
    views.push_back({.severity = "error",
                     .object = "node",
                     .key = "held",
                     .reason = held_reason(in_force()),
                     .action = "correct what the other problems name; an engine that starts is "
                               "taken in only then"});
  }
  if (std::all_of(engines.begin(), engines.end(),
                  [](const admin::EngineView& engine) { return engine.state == "down"; })) {
    views.push_back(
        {.severity = "error",
         .object = "engine",
         .key = "engine_down",
         .reason = engines.front().detail,
         .action = (is_held() ? "correct what the other problems name: no engine is taken in before"
                              : how_to_start(options_)) +
                   "; until then connections of redirected pods go as "
                   "sidetrack.io/on-engine-loss says"});
  }
  const auto others = slots_.empty() ? Unregistered::Others::kNone : Unregistered::Others::kSome;
  for (admin::ProblemView& view : unregistered_.problems(others, Unregistered::Clock::now())) {
    views.push_back(std::move(view));
  }
  if (kubernetes_) {
    add_kubernetes_problems(kubernetes_->view(), views);
  }
  for (const std::string& error : program_errors_) {
    views.push_back(
        {.severity = "error", .object = "node", .reason = error, .action = "sidetrackctl doctor"});
  }
  for (const Repair& repair : recent_repairs_) {
    if (const double age_s = static_cast<double>(std::time(nullptr)) - repair.time;
        age_s < kRepairShown_s) {
      views.push_back(
          {.severity = "warning",
           .object = "node",
           .key = "repaired",
           .reason = fmt::format("{}; put right {:.0f} s ago", repair.what, std::max(0.0, age_s)),
           .action = "find what else changes Sidetrack's programs and maps (bpftool, a clean-up "
                     "job, a second agent)"});
    }
  }
  for (const kube::Problem& problem : problems_) {
    views.push_back(object_problem(problem, in_force()));
  }
  for (const reconcile::PodStatus& pod : pods) {
    if (pod.phase == reconcile::PodPhase::kDrift && pod.reason != "engine_down" &&
        pod.reason != kNotAttached) {
      views.push_back(drift_view(pod));
    }
  }
  if (options_.engine == reconcile::EngineKind::kEmbedded) {
    std::ranges::move(listener_port_problems(pods, listener_ports_of(options_)),
                      std::back_inserter(views));
  }
  return views;
}

void Agent::look_at_listener_ports(const std::vector<reconcile::PodStatus>& pods) {
  if (options_.engine == reconcile::EngineKind::kEmbedded) {
    log_problems("engine", listener_port_watch_.look(pods, listener_ports_of(options_)),
                 StatusHas::kSome);
  }
}

}  // namespace sidetrack::agent
