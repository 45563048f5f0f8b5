// SPDX-License-Identifier: Apache-2.0
// Relays that engines have declared: joins their two pairs when both are adopted, so that each
// application may send past the engine to the other (handoff). Both directions or none: the release
// of a reader looks for its far sender only if it is linked itself. One thread; time is passed in.
#pragma once

#include <map>
#include <vector>

#include "agent/adopt/pair_table.h"
#include "agent/adopt/ports.h"

namespace sidetrack::adopt {

class Relays {
 public:
  Relays(Sockets& sockets, PairTable& pairs) : sockets_(sockets), pairs_(pairs) {}

  // `until`: for so long its pairs may still be unknown.
  void add(const Link& link, Clock::time_point until);
  // A pair was adopted: one that waits may be joined.
  void look_again() { look_ = true; }
  // `pair` leaves. Gives the other pair of its relay, which must leave, too; they are joined again
  // when both are back.
  [[nodiscard]] Pair* part(Pair& pair, Clock::time_point now);
  // Joins what can be joined; gives the reasons of those that could not and never will.
  [[nodiscard]] std::vector<st_fast_reason> connect(Clock::time_point now);

 private:
  struct Pending {
    Link link;
    Clock::time_point until;
  };
  enum class Outcome { kJoined, kWaits, kNever };

  // `failed`: why the kernel did not join them, if it was asked.
  [[nodiscard]] Outcome try_to_join(const Pending& pending, Clock::time_point now,
                                    st_fast_reason* failed);
  [[nodiscard]] st_fast_reason join(Pair& client, Pair& server, const Link& link);

  Sockets& sockets_;
  PairTable& pairs_;
  std::map<std::uint64_t, Pending> pending_;  // by the cookie of the client's leg
  bool look_ = false;
  Clock::time_point look_at_{};
};

}  // namespace sidetrack::adopt
