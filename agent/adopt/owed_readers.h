// SPDX-License-Identifier: Apache-2.0
// Readers that are owed a word: bytes went by TCP behind some that wait past it, and one that
// watches edges may not come back for them (docs/adr/0010). Each is looked at until it has read the
// first, and told again if it leaves the others. A FIN behind them goes when it has read the first
// (docs/adr/0021). One thread; time is passed in.
#pragma once

#include <map>

#include "agent/adopt/pair_table.h"
#include "agent/adopt/ports.h"

namespace sidetrack::adopt {

class OwedReaders {
 public:
  OwedReaders(Sockets& sockets, PairTable& pairs) : sockets_(sockets), pairs_(pairs) {}

  void add(std::uint64_t cookie, Clock::time_point now);
  // Looks at those that are due.
  void look(Clock::time_point now);

 private:
  struct Owed {
    Clock::time_point due;
    bool only_tcp_before = false;  // the last look found bytes of TCP only
  };

  [[nodiscard]] st_adopt_request request_to(std::uint64_t cookie);
  void answer(std::uint64_t cookie, const st_adopt_request& request, st_fast_reason found);

  Sockets& sockets_;
  PairTable& pairs_;
  std::map<std::uint64_t, Owed> owed_;  // by the reader's cookie
};

}  // namespace sidetrack::adopt
