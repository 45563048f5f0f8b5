// SPDX-License-Identifier: Apache-2.0
// What is known of the pairs, for status, metrics and explain; moves none of them. against() alone
// changes something: it begins a pass of admission.
#include <algorithm>

#include "agent/adopt/adoption.h"

namespace sidetrack::adopt {

std::map<std::uint64_t, PodSummary> Adoption::summaries() const {
  std::map<std::uint64_t, PodSummary> summaries;
  for (const auto& [netns_cookie, reason] : last_refusal_) {
    summaries[netns_cookie].reason = reason;
  }
  for (const auto& [cookie, pair] : pairs_.all()) {
    for (const std::uint64_t pod : pods_of(pair)) {
      PodSummary& summary = summaries[pod];
      if (pair.stage == Stage::kAdopted) {
        ++summary.adopted;
      } else if (pair.stage != Stage::kRefused) {
        ++summary.waiting;
        summary.reason = pair.reason;
      }
    }
  }
  return summaries;
}

st_fast_reason Adoption::against(std::uint64_t client, std::optional<std::uint64_t> server,
                                 Clock::time_point now) {
  Pair pair;
  pair.nominated.kind = server ? ST_PAIR_DIRECT : ST_PAIR_TO_ENGINE;
  pair.nominated.end[ST_SIDE_CLIENT].netns_cookie = client;
  pair.nominated.end[ST_SIDE_SERVER].netns_cookie = server.value_or(0);
  admission_.begin_pass();
  Clock::time_point until = now;
  return admission_.against(pair, now, &until);
}

std::map<std::uint64_t, std::uint64_t> Adoption::adopted_by_client() const {
  std::map<std::uint64_t, std::uint64_t> counts;
  for (const auto& [cookie, pair] : pairs_.all()) {
    counts[pair.nominated.end[ST_SIDE_CLIENT].netns_cookie] +=
        pair.stage == Stage::kAdopted ? 1 : 0;
  }
  return counts;
}

std::uint64_t Adoption::adopted() const {
  std::uint64_t sum = 0;
  for (const auto& [netns_cookie, count] : adopted_by_client()) {
    sum += count;
  }
  return sum;
}

bool Adoption::has_any_in() const {
  return std::any_of(pairs_.all().begin(), pairs_.all().end(),
                     [](const auto& entry) { return is_in(entry.second); });
}

}  // namespace sidetrack::adopt
