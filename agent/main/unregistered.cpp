// SPDX-License-Identifier: Apache-2.0
#include "agent/main/unregistered.h"

#include <fmt/format.h>

#include <utility>

namespace sidetrack::agent {

namespace {

// An engine tries every two seconds at the least.
constexpr std::chrono::seconds kPatience{30};

}  // namespace

void Unregistered::look(const std::map<std::uint16_t, std::int64_t>& engines,
                        Clock::time_point now) {
  decltype(seen_) seen;
  for (const auto& [slot, pid] : engines) {
    const auto known = seen_.find(slot);
    const bool same = known != seen_.end() && known->second.pid == pid;
    seen[slot] = same ? known->second : Seen{.pid = pid, .since = now};
  }
  seen_ = std::move(seen);
}

std::vector<admin::ProblemView> Unregistered::problems(Others others, Clock::time_point now) const {
  std::vector<admin::ProblemView> views;
  for (const auto& [slot, engine] : seen_) {
    if (now - engine.since < kPatience) {
      continue;
    }
    views.push_back({.severity = others == Others::kSome ? "warning" : "error",
                     .object = "engine",
                     .key = "engine_not_registered",
                     .reason = fmt::format("the engine with pid {} runs, but has not registered "
                                           "with this agent: pods that it does not have yet get no "
                                           "listeners from it",
                                           engine.pid),
                     .action = "its log and the agent's say why (another version, too many "
                               "engines, another --state-dir); then start it again"});
  }
  return views;
}

}  // namespace sidetrack::agent
