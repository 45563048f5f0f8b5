// SPDX-License-Identifier: Apache-2.0
#include "agent/main/late_watch.h"

#include <algorithm>
#include <utility>

namespace sidetrack::agent {
namespace {

// The kernel says in hundredths of a second when a process was started.
constexpr std::chrono::milliseconds kTolerance{50};

}  // namespace

LateWatch::LateWatch(std::set<std::string> before) {
  for (const std::string& name : before) {
    enrolled_since_[name] = Clock::time_point::min();
  }
}

void LateWatch::on_enrolled(const std::set<std::string>& namespaces, Clock::time_point now) {
  std::erase_if(enrolled_since_, [&](const auto& one) { return !namespaces.contains(one.first); });
  for (const std::string& name : namespaces) {
    enrolled_since_.try_emplace(name, now);
  }
}

std::optional<std::chrono::milliseconds> LateWatch::judge(const reconcile::PodStatus& pod,
                                                          Clock::time_point started) const {
  const auto enrolled = enrolled_since_.find(pod.intent.namespace_name);
  if (!pod.captured_at || enrolled == enrolled_since_.end()) {
    return std::nullopt;
  }
  const auto since = std::max({started, enrolled->second, pod.wanted_since.value_or(started)});
  if (*pod.captured_at - since < kTolerance) {
    return std::nullopt;
  }
  return std::chrono::round<std::chrono::milliseconds>(*pod.captured_at - since);
}

std::vector<LatePod> LateWatch::look(const std::vector<reconcile::PodStatus>& pods,
                                     const RunningSince& running_since) {
  std::vector<LatePod> found;
  decltype(judged_) judged;
  for (const reconcile::PodStatus& pod : pods) {
    // Also while its row is gone: it is written again, which is no news of the pod.
    if (const auto known = judged_.find(pod.netns_cookie); known != judged_.end()) {
      judged.insert(*known);
      continue;
    }
    if (pod.netns_cookie == 0 || !pod.row) {
      continue;
    }
    const auto started = running_since(pod);
    if (pod.intent.state != policy::PodState::kEnrol || !started) {
      continue;
    }
    const auto late = judge(pod, *started);
    judged[pod.netns_cookie] = late;
    if (late) {
      ++total_;
      found.push_back({pod.intent.namespace_name, pod.intent.name, *late});
    }
  }
  judged_ = std::move(judged);
  return found;
}

std::optional<std::chrono::milliseconds> LateWatch::late(std::uint64_t netns_cookie) const {
  const auto known = judged_.find(netns_cookie);
  return known == judged_.end() ? std::nullopt : known->second;
}

}  // namespace sidetrack::agent
