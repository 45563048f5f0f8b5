// SPDX-License-Identifier: Apache-2.0
// How a connection can end: each case says what the two applications see. fast_list_end_test runs
// them on plain TCP and past it, fast_list_handoff_test through an engine and past that. Thread
// rule: as FastList.
#pragma once

#include <vector>

#include "tests/dataplane/fast_list.h"

namespace sidetrack::lab {

class FastListEndings : public FastList {
 protected:
  [[nodiscard]] static std::vector<Case> endings();
  // So many messages of a size, and close() right after the last.
  [[nodiscard]] static Case last_words(const char* name, int count, std::size_t size,
                                       int times = 1);
};

}  // namespace sidetrack::lab
