// SPDX-License-Identifier: Apache-2.0
#include "agent/main/ring_looks.h"

#include <utility>

#include "sidetrack/log/log.h"

namespace sidetrack::agent {

RingLooks::News RingLooks::look(const std::set<std::uint64_t>& pods, const PlaceOf& place_of,
                                Clock::time_point now) {
  const auto is_over = [&pods](std::uint64_t pod) { return !pods.contains(pod); };
  std::erase_if(has_ring_, [&](const auto& one) { return is_over(one.first); });
  std::erase_if(told_, is_over);
  pods::RingsWanted wanted;
  std::map<std::uint64_t, ino_t> unknown;
  bool is_due = now >= again_at_;
  for (const std::uint64_t pod : pods) {
    const auto place = has_ring_.contains(pod) ? std::nullopt : place_of(pod);
    if (place) {
      unknown[pod] = place->netns;
      wanted[place->netns] = place->pod_uid;
      is_due = is_due || !told_.contains(pod);
    }
  }
  if (wanted.empty() || !is_due) {
    return {};
  }
  const auto holders = search_(wanted);
  if (!holders) {
    if (!std::exchange(search_failed_, true)) {
      log_event(LogLevel::kWarn, "adopt", "list_failed", {{"detail", holders.error().message}});
    }
    return {};
  }
  search_failed_ = false;
  again_at_ = now + kAgain;
  News news;
  for (const auto& [pod, netns] : unknown) {
    if (const auto unseen = holders->unseen.find(netns); unseen != holders->unseen.end()) {
      tell(pod, unseen->second);
      continue;
    }
    news.any = true;
    has_ring_[pod] = holders->found.contains(netns);
    if (has_ring_[pod]) {
      news.with_ring.push_back(pod);
    }
  }
  return news;
}

bool RingLooks::has_ring(std::uint64_t pod) const {
  const auto found = has_ring_.find(pod);
  return found != has_ring_.end() && found->second;
}

void RingLooks::tell(std::uint64_t pod, const std::string& why) {
  if (told_.insert(pod).second) {
    log_event(LogLevel::kWarn, "adopt", "not_looked_at",
              {{"netns_cookie", pod},
               {"detail", why + ": whether it uses io_uring is not known, so its connections stay "
                                "on TCP (CAP_SYS_PTRACE and CAP_DAC_OVERRIDE are needed)"}});
  }
}

}  // namespace sidetrack::agent
