// SPDX-License-Identifier: Apache-2.0
// The cases of the fast path's test list: each says what the two applications see.
// fast_list_*_test.cpp run them on plain TCP and past it, fast_list_handoff_test.cpp through an
// engine and past that. Thread rule: as FastList.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "tests/dataplane/fast_list.h"

namespace sidetrack::lab {

// How a connection can end.
[[nodiscard]] std::vector<FastList::Case> endings();
// So many messages of a size, and close() right after the last.
[[nodiscard]] FastList::Case last_words(const char* name, int count, std::size_t size,
                                        int times = 1);

// How it can be read.
[[nodiscard]] std::vector<FastList::Case> readings();
[[nodiscard]] FastList::Case peeks_at_requests();    // in lock step, each in parts
[[nodiscard]] FastList::Case peeks_at_a_pipeline();  // more is under way than fits past TCP
// Nobody takes `most` bytes: more than the buffers of one connection.
inline constexpr std::uint64_t kMoreThanBuffers = 20U << 20U;
[[nodiscard]] FastList::Case offers_to_a_sleeping_reader(std::uint64_t most = kMoreThanBuffers);
// Keeps the sockets of its pods on TCP from then on. Nothing: built without liburing.
[[nodiscard]] std::optional<FastList::Case> talks_by_uring();

// How it can be written.
[[nodiscard]] std::vector<FastList::Case> writings();
[[nodiscard]] FastList::Case urgent_byte();
[[nodiscard]] FastList::Case urgent_byte_of_a_relay();  // in line anyway: docs/deviations.md, 12

// What an application sets or does after the first bytes.
[[nodiscard]] std::vector<FastList::Case> late_calls();
// As talks_by_uring().
[[nodiscard]] FastList::Case asks_with_fionread();

// The same with client and server the other way round.
[[nodiscard]] FastList::Case mirrored(FastList::Case one);

}  // namespace sidetrack::lab
