// SPDX-License-Identifier: Apache-2.0
// Engines that serve the pods that they had, but have not come (back) to this agent: it refuses
// them, or they ask another folder. For how long, and from when on that is a problem. Time is
// passed in. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <vector>

#include "agent/admin/views.h"

namespace sidetrack::agent {

class Unregistered {
 public:
  using Clock = std::chrono::steady_clock;

  // Those that are in this state now: pids by the slots of their cells.
  void look(const std::map<std::uint16_t, std::int64_t>& engines, Clock::time_point now);

  // `others`: whether another engine is registered, which gets the pods.
  enum class Others { kNone, kSome };
  [[nodiscard]] std::vector<admin::ProblemView> problems(Others others,
                                                         Clock::time_point now) const;

 private:
  struct Seen {
    std::int64_t pid = 0;
    Clock::time_point since;
  };
  std::map<std::uint16_t, Seen> seen_;
};

}  // namespace sidetrack::agent
