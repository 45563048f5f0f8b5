// SPDX-License-Identifier: Apache-2.0
// Which pods had an io_uring before the sentinel could see it being made: each is looked at once,
// as soon as its processes can be. Time is passed in. One thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/pods/processes.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

class RingLooks {
 public:
  using Clock = std::chrono::steady_clock;
  struct Place {
    ino_t netns = 0;
    std::string pod_uid;  // as cgroups have it; empty: not known
  };
  // By its netns cookie; nothing: its namespace is not known now.
  using PlaceOf = std::function<std::optional<Place>(std::uint64_t)>;
  using Search = std::function<Result<pods::RingHolders>(const pods::RingsWanted&)>;
  struct News {
    std::vector<std::uint64_t> with_ring;
    bool any = false;  // some pod was looked at
  };

  explicit RingLooks(Search search) : search_(std::move(search)) {}

  // Those of `pods` that were not looked at yet; what is known of others is forgotten. A search
  // goes through all processes of the node: for those that could not be looked at by the last one
  // there is another after kAgain, or with that for a new one.
  News look(const std::set<std::uint64_t>& pods, const PlaceOf& place_of, Clock::time_point now);
  static constexpr std::chrono::seconds kAgain{5};
  [[nodiscard]] bool has_looked_at(std::uint64_t pod) const { return has_ring_.contains(pod); }
  [[nodiscard]] bool has_ring(std::uint64_t pod) const;

 private:
  void tell(std::uint64_t pod, const std::string& why);

  Search search_;
  std::map<std::uint64_t, bool> has_ring_;  // of those that were looked at
  std::set<std::uint64_t> told_;            // of those that could not be
  Clock::time_point again_at_{};            // for these
  bool search_failed_ = false;
};

}  // namespace sidetrack::agent
