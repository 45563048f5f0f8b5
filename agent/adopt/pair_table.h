// SPDX-License-Identifier: Apache-2.0
// The pairs that are known, found by the cookie of either end, and when each is due. A pair stays
// where it is until it is erased. One thread.
#pragma once

#include <map>
#include <vector>

#include "agent/adopt/pair.h"

namespace sidetrack::adopt {

class PairTable {
 public:
  using Pairs = std::map<std::uint64_t, Pair>;  // by the client's cookie

  [[nodiscard]] Pair* find(std::uint64_t cookie);
  // The pair of this candidate, made if there is none; its ends are those of the candidate.
  Pair& put(const Candidate& candidate);
  void erase(std::uint64_t client_cookie);
  [[nodiscard]] Pairs& all() { return pairs_; }
  [[nodiscard]] const Pairs& all() const { return pairs_; }

  void set_due(Pair& pair, Clock::time_point due);
  void move_to(Pair& pair, Stage stage, Clock::time_point due);
  [[nodiscard]] std::map<Stage, std::vector<Pair*>> take_due(Clock::time_point now);

 private:
  Pairs pairs_;
  std::map<std::uint64_t, std::uint64_t> client_of_;       // either cookie -> client's cookie
  Clock::time_point next_due_ = Clock::time_point::max();  // of any pair, or earlier
};

}  // namespace sidetrack::adopt
