// SPDX-License-Identifier: Apache-2.0
// Why pairs are on TCP, noted in the kernel beside them: whoever shows a connection reads it there,
// and its flow record has it after its end. One thread.
#pragma once

#include <vector>

#include "agent/adopt/pair_table.h"
#include "agent/adopt/ports.h"

namespace sidetrack::adopt {

class Notes {
 public:
  explicit Notes(Sockets& sockets) : sockets_(sockets) {}

  // Tells the kernel what it does not have yet.
  void tell(const std::vector<Pair*>& pairs);
  // Of what an earlier agent adopted: its build may have kept no reasons.
  void tell_adopted(const PairTable::Pairs& pairs);

 private:
  Sockets& sockets_;
};

}  // namespace sidetrack::adopt
