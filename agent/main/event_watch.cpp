// SPDX-License-Identifier: Apache-2.0
#include "agent/main/event_watch.h"

#include <fmt/format.h>

#include <set>
#include <utility>

namespace sidetrack::agent {
namespace {

constexpr std::chrono::seconds kPatience{10};
constexpr std::chrono::seconds kNodePatience{60};

std::string uid_of(const kube::ObjectSet& objects, const std::string& key) {
  const auto pod = objects.pods.find(key);
  return pod == objects.pods.end() ? "" : pod->second.metadata.uid;
}

// "Pod/shop/web-0" or "Namespace/shop"; other problems (files, the API) are the node's to tell.
kube::ClusterEvent object_of(const std::string& text, const kube::ObjectSet& objects) {
  kube::ClusterEvent event;
  const std::size_t slash = text.find('/');
  const std::string kind = text.substr(0, slash);
  const std::string key = slash == std::string::npos ? "" : text.substr(slash + 1);
  if (kind == "Namespace") {
    event.kind = kind;
    event.name = key;
  } else if (const std::size_t second = key.find('/');
             kind == "Pod" && second != std::string::npos) {
    event.kind = kind;
    event.namespace_name = key.substr(0, second);
    event.name = key.substr(second + 1);
    event.uid = uid_of(objects, key);
  }
  return event;
}

}  // namespace

std::vector<kube::ClusterEvent> EventWatch::look(const std::vector<reconcile::PodStatus>& pods,
                                                 const kube::ObjectSet& objects,
                                                 const std::vector<kube::Problem>& problems,
                                                 Clock::time_point now) {
  std::vector<kube::ClusterEvent> events;
  std::set<std::string> missing;
  for (const reconcile::PodStatus& pod : pods) {
    const std::string key = pod.intent.namespace_name + "/" + pod.intent.name;
    const bool cannot =
        pod.phase == reconcile::PodPhase::kSkipped && pod.reason == "sandboxed_runtime";
    // Nothing of it runs as yet.
    const auto object = objects.pods.find(key);
    if (pod.reason == reconcile::kRuntimeNotSeen ||
        (pod.reason == "no_netns" && object != objects.pods.end() &&
         object->second.phase == "Pending")) {
      continue;
    }
    if (!cannot && pod.phase != reconcile::PodPhase::kDrift &&
        pod.phase != reconcile::PodPhase::kPending) {
      continue;
    }
    missing.insert(key);
    if (now - missing_since_.try_emplace(key, now).first->second < kPatience) {
      continue;
    }
    events.push_back(
        {.kind = "Pod",
         .namespace_name = pod.intent.namespace_name,
         .name = pod.intent.name,
         .uid = uid_of(objects, key),
         .reason = "SidetrackNotCaptured",
         .message = fmt::format("{}: {} ({})",
                                pod.reason == reconcile::kRuntimeHidden
                                    ? "its connections may not be redirected"
                                    : "its connections are not redirected",
                                pod.detail.empty() ? pod.reason : pod.detail, pod.reason)});
  }
  std::erase_if(missing_since_, [&](const auto& one) { return !missing.contains(one.first); });
  for (const kube::Problem& problem : problems) {
    kube::ClusterEvent event = object_of(problem.object, objects);
    if (event.kind.empty() || problem.warning) {
      continue;
    }
    event.reason = "SidetrackPolicyInvalid";
    event.about = problem.key;
    event.message = fmt::format("{}: '{}': {}", problem.key, problem.value, problem.reason);
    events.push_back(std::move(event));
  }
  return events;
}

std::optional<kube::ClusterEvent> EventWatch::look_at_node(
    const std::vector<admin::ProblemView>& problems, Clock::time_point now) {
  std::set<std::string> present;
  std::string text;
  for (const admin::ProblemView& problem : problems) {
    const bool of_node =
        problem.object == "node" || problem.object == "engine" || problem.object == "cni";
    if (!of_node || problem.severity != "error") {
      continue;
    }
    // The reason of one and the same may change (seconds, a count).
    const std::string what =
        problem.object + " " + (problem.key.empty() ? problem.reason : problem.key);
    present.insert(what);
    if (now - degraded_since_.try_emplace(what, now).first->second >= kNodePatience) {
      text += fmt::format("{}{}: {} ({})", text.empty() ? "" : "; ", problem.object, problem.reason,
                          problem.action);
    }
  }
  std::erase_if(degraded_since_, [&](const auto& one) { return !present.contains(one.first); });
  return text.empty() ? std::nullopt : std::optional(degraded(std::move(text)));
}

kube::ClusterEvent EventWatch::captured_late(const LatePod& pod, const kube::ObjectSet& objects) {
  return {.kind = "Pod",
          .namespace_name = pod.namespace_name,
          .name = pod.name,
          .uid = uid_of(objects, pod.namespace_name + "/" + pod.name),
          .reason = "SidetrackCapturedLate",
          .message = fmt::format("it ran for {:.1f} s before it was captured: connections of that "
                                 "time went direct, and those that are still open do",
                                 std::chrono::duration<double>(pod.late).count())};
}

kube::ClusterEvent EventWatch::degraded(std::string message) const {
  return {.kind = "Node",
          .namespace_name = "",
          .name = node_name_,
          .uid = "",
          .reason = "SidetrackDegraded",
          .message = std::move(message)};
}

}  // namespace sidetrack::agent
