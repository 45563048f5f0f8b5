// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/admission.h"

#include <algorithm>

#include "sidetrack/fast_rules.h"

namespace sidetrack::adopt {

std::vector<std::uint64_t> pods_of(const Pair& pair) {
  const Candidate& nominated = pair.nominated;
  switch (nominated.kind) {
    case ST_PAIR_TO_ENGINE:
      return {nominated.end[ST_SIDE_CLIENT].netns_cookie};
    case ST_PAIR_FROM_ENGINE:
      return {nominated.end[ST_SIDE_SERVER].netns_cookie};
    default:
      return {nominated.end[ST_SIDE_CLIENT].netns_cookie,
              nominated.end[ST_SIDE_SERVER].netns_cookie};
  }
}

Admission::Admission(Settings settings, Pods& pods, Workloads& workloads)
    : settings_(settings), pods_(pods), workloads_(workloads) {}

void Admission::saw_traffic(const Pair& pair, Clock::time_point now) {
  for (const std::uint64_t pod : pods_of(pair)) {
    first_seen_.try_emplace(pod, now);
  }
}

void Admission::demote(std::uint64_t netns_cookie, st_fast_reason reason) {
  if (const auto& known = pod(netns_cookie)) {
    workloads_.demote(known->workload, reason);
  }
}

void Admission::prune() {
  std::erase_if(first_seen_, [this](const auto& entry) { return !is_pod(entry.first); });
}

// The event that told of a demotion may have been lost: what the kernel has counts.
const std::optional<Pod>& Admission::pod(std::uint64_t netns_cookie) {
  const auto [entry, is_new] = asked_.try_emplace(netns_cookie);
  if (is_new) {
    entry->second = pods_.pod(netns_cookie);
    if (entry->second && entry->second->demoted != ST_FAST_NONE) {
      workloads_.demote(entry->second->workload, entry->second->demoted);
    }
  }
  return entry->second;
}

st_fast_reason Admission::against_pod(const Pod& pod, std::uint64_t netns_cookie,
                                      Clock::time_point now, Clock::time_point* until) const {
  if (st_pod_takes_part(&pod.row) == 0) {
    return ST_FAST_POD_OFF;
  }
  if (pod.demoted != ST_FAST_NONE) {
    return pod.demoted;
  }
  if (workloads_.demoted(pod.workload) != ST_FAST_NONE) {
    return ST_FAST_WORKLOAD;
  }
  if (pod.unseen) {
    return ST_FAST_NO_SENTINEL;
  }
  const auto seen = first_seen_.find(netns_cookie);
  if (seen != first_seen_.end() && now < seen->second + settings_.probation) {
    *until = std::max(*until, seen->second + settings_.probation);
    return ST_FAST_PROBATION;
  }
  return ST_FAST_NONE;
}

st_fast_reason Admission::against(const Pair& pair, Clock::time_point now,
                                  Clock::time_point* until) {
  if (!settings_.enabled) {
    return ST_FAST_NODE_OFF;
  }
  st_fast_reason probation = ST_FAST_NONE;
  std::vector<Pod> known;
  for (const std::uint64_t cookie : pods_of(pair)) {
    const auto& known_pod = pod(cookie);
    if (!known_pod) {
      return ST_FAST_POD_OFF;
    }
    const st_fast_reason reason = against_pod(*known_pod, cookie, now, until);
    if (reason == ST_FAST_PROBATION) {
      probation = reason;
    } else if (reason != ST_FAST_NONE) {
      return reason;
    }
    known.push_back(*known_pod);
  }
  if (known.size() == 2) {
    if (const auto reason = st_pods_allow(&known[0].row, &known[1].row); reason != ST_FAST_NONE) {
      return reason;
    }
  }
  return probation;
}

}  // namespace sidetrack::adopt
