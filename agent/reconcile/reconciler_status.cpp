// SPDX-License-Identifier: Apache-2.0
// What the reconciler says of its pods; changes nothing.
#include <tuple>
#include <utility>

#include "agent/reconcile/reconciler.h"

namespace sidetrack::reconcile {

namespace {

constexpr const char* kNoNetns = "no_netns";
constexpr const char* kLoopbackDown = "loopback_down";

}  // namespace

std::pair<PodPhase, std::string> Reconciler::phase(const Entry& entry) const {
  if (entry.intent.state == policy::PodState::kSkipped) {
    return {PodPhase::kSkipped, entry.intent.reason};
  }
  if (entry.intent.netns_path.empty()) {
    return {PodPhase::kDrift, kNoNetns};
  }
  if (!entry.reason.empty() || !entry.row) {
    return {PodPhase::kDrift, entry.reason.empty() ? "not_written" : entry.reason};
  }
  if (entry.row->mode == ST_MODE_REDIRECT && !has_listener(*entry.row)) {
    if (!entry.facts->loopback_up) {
      return {PodPhase::kDrift, kLoopbackDown};
    }
    if (!entry.engine_failure.empty()) {
      return {PodPhase::kDrift, "listen_failed"};
    }
    return engines_.connected()
               ? std::pair{PodPhase::kPending, std::string("waiting_for_listeners")}
               : std::pair{PodPhase::kDrift, std::string("engine_down")};
  }
  return {PodPhase::kEnrolled, entry.intent.reason};
}

PodStatus Reconciler::describe(const Entry& entry) const {
  PodStatus status;
  status.intent = entry.intent;
  std::tie(status.phase, status.reason) = phase(entry);
  if (status.phase != PodPhase::kSkipped) {
    status.detail = entry.detail.empty() ? entry.engine_failure : entry.detail;
  }
  if (status.reason == kNoNetns) {
    status.detail = !entry.intent.netns_problem.empty()
                        ? "its network namespace is not known: " + entry.intent.netns_problem
                        : "no network namespace is known for it: with source files the pod's "
                          "annotation sidetrack.io/netns names it, such as /run/netns/web";
  } else if (status.reason == kLoopbackDown) {
    status.detail =
        "lo is down in its network namespace, where the engine would listen: ip link set lo up";
  } else if (status.detail.empty()) {
    status.detail = entry.intent.reason_detail;
  }
  status.netns_cookie = entry.facts ? entry.facts->cookie : 0;
  status.row = entry.row;
  status.captured_at = entry.captured_at;
  status.wanted_since = entry.wanted_since;
  return status;
}

std::vector<PodStatus> Reconciler::status() const {
  std::vector<PodStatus> pods;
  for (const auto& [key, entry] : entries_) {
    if (entry.wanted) {
      pods.push_back(describe(entry));
    }
  }
  return pods;
}

std::optional<PodStatus> Reconciler::status_of(const std::string& namespace_name,
                                               const std::string& name) const {
  const auto entry = entries_.find(namespace_name + "/" + name);
  if (entry == entries_.end() || !entry->second.wanted) {
    return std::nullopt;
  }
  return describe(entry->second);
}

const Reconciler::Owner* Reconciler::owner(std::uint64_t netns_cookie) const {
  const auto found = owners_.find(netns_cookie);
  return found == owners_.end() ? nullptr : &found->second;
}

std::optional<std::string> Reconciler::netns_path(std::uint64_t netns_cookie) const {
  const auto key = keys_.find(netns_cookie);
  return key == keys_.end() ? std::nullopt : std::optional(entries_.at(key->second).path);
}

const policy::PodIntent* Reconciler::intent(const std::string& namespace_name,
                                            const std::string& name) const {
  const auto entry = entries_.find(namespace_name + "/" + name);
  return entry == entries_.end() || !entry->second.wanted ? nullptr : &entry->second.intent;
}

std::optional<std::uint64_t> Reconciler::cookie(const std::string& namespace_name,
                                                const std::string& name) const {
  const auto entry = entries_.find(namespace_name + "/" + name);
  if (entry == entries_.end() || !entry->second.facts) {
    return std::nullopt;
  }
  return entry->second.facts->cookie;
}

}  // namespace sidetrack::reconcile
