// SPDX-License-Identifier: Apache-2.0
// What the reconciler says of its pods; changes nothing.
#include <utility>

#include "agent/reconcile/reconciler.h"

namespace sidetrack::reconcile {

namespace {

std::string without_netns(const policy::PodIntent& intent) {
  return !intent.netns_problem.empty()
             ? "its network namespace is not known: " + intent.netns_problem
             : "no network namespace is known for it: with source files the pod's annotation "
               "sidetrack.io/netns names it, such as /run/netns/web";
}

}  // namespace

Reconciler::Finding Reconciler::without_runtime(const policy::PodIntent& intent) {
  const std::string what =
      "it has a runtimeClassName: whether its sockets are the node's, which can be redirected, is ";
  return intent.runtime_problem.empty()
             ? Finding{PodPhase::kPending, kRuntimeNotSeen,
                       what + "known when its first process runs"}
             : Finding{PodPhase::kPending, kRuntimeHidden,
                       what + "not known, because its processes cannot be seen: " +
                           intent.runtime_problem + " (CAP_SYS_PTRACE is needed)"};
}

std::optional<Reconciler::Finding> Reconciler::damage(
    const Entry& entry, const Result<std::optional<st_pod>>& in_kernel) const {
  if (!in_kernel) {
    return Finding{PodPhase::kDrift, "map_read_failed", in_kernel.error().message};
  }
  if (!entry.row) {
    return std::nullopt;
  }
  if (!*in_kernel) {
    return Finding{PodPhase::kDrift, "row_missing",
                   "its row is gone from the kernel: its connections go direct"};
  }
  if (const std::string words = difference(*entry.row, **in_kernel); !words.empty()) {
    return Finding{PodPhase::kDrift, "row_differs", "the kernel has another " + words + " for it"};
  }
  if (const std::uint32_t policy_id = (*in_kernel)->policy_id; policy_id != 0) {
    const auto held = kernel_.holds_policy(policy_id);
    if (!held || !*held) {
      return Finding{
          PodPhase::kDrift, held ? "policy_differs" : "map_read_failed",
          held ? "the kernel has not its policy as it was written" : held.error().message};
    }
  }
  return std::nullopt;
}

Reconciler::Finding Reconciler::look_at(const Entry& entry,
                                        const Result<std::optional<st_pod>>& in_kernel) const {
  const bool skipped = entry.intent.state == policy::PodState::kSkipped;
  const auto fallback = [&entry](const std::string& detail) {
    return detail.empty() ? entry.intent.reason_detail : detail;
  };
  if (!skipped && entry.intent.netns_path.empty()) {
    return {PodPhase::kDrift, "no_netns", without_netns(entry.intent)};
  }
  if (!skipped && !entry.reason.empty()) {
    return {PodPhase::kDrift, entry.reason, fallback(entry.detail)};
  }
  if (auto damaged = damage(entry, in_kernel)) {
    if (skipped) {  // the reason alone tells: nobody wants it enrolled
      damaged->phase = PodPhase::kSkipped;
    }
    return *damaged;
  }
  if (skipped) {
    return {PodPhase::kSkipped, entry.intent.reason, entry.intent.reason_detail};
  }
  if (!entry.row) {
    return {PodPhase::kDrift, "not_written", fallback(entry.detail)};
  }
  const std::string detail = fallback(entry.detail.empty() ? entry.engine_failure : entry.detail);
  if ((*in_kernel)->mode != ST_MODE_REDIRECT || has_listener(**in_kernel)) {
    if (entry.intent.runtime_unseen) {
      return without_runtime(entry.intent);
    }
    return {PodPhase::kEnrolled, entry.intent.reason, detail};
  }
  if (!entry.facts->loopback_up) {
    return {PodPhase::kDrift, "loopback_down",
            "lo is down in its network namespace, where the engine would listen: ip link set lo "
            "up"};
  }
  if (!entry.engine_failure.empty()) {
    return {PodPhase::kDrift, "listen_failed", detail};
  }
  return engines_.connected() ? Finding{PodPhase::kPending, "waiting_for_listeners", detail}
                              : Finding{PodPhase::kDrift, "engine_down", detail};
}

PodStatus Reconciler::describe(const Entry& entry) const {
  PodStatus status;
  status.intent = entry.intent;
  status.netns_cookie = entry.facts ? entry.facts->cookie : 0;
  const auto in_kernel =
      entry.facts ? kernel_.pod(entry.facts->cookie) : Result(std::optional<st_pod>());
  Finding finding = look_at(entry, in_kernel);
  status.phase = finding.phase;
  status.reason = std::move(finding.reason);
  status.detail = std::move(finding.detail);
  status.row = in_kernel ? *in_kernel : std::nullopt;
  status.captured_at = entry.captured_at;
  status.wanted_since = entry.wanted_since;
  status.facts = entry.facts;
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
