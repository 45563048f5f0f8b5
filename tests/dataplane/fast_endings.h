// SPDX-License-Identifier: Apache-2.0
// How a connection can end: each says what the two applications saw. fast_list_end_test runs them
// on plain TCP and past it, fast_list_handoff_test through an engine and past that. Thread rule:
// plain functions.
#pragma once

#include <functional>
#include <string>

#include "tests/dataplane/fast_node.h"

namespace sidetrack::lab::endings {

// So many messages of a size, and close() right after the last; what the reader says when all came.
[[nodiscard]] std::function<std::string(Ends&)> last_words(int count, std::size_t size);
[[nodiscard]] std::string all_of(int count, std::size_t size);
[[nodiscard]] std::string half_close_both_ways(Ends& ends);
// The other direction goes on for long after a half-close.
[[nodiscard]] std::string stream_after_half_close(Ends& ends);
[[nodiscard]] std::string stop_reading(Ends& ends);
[[nodiscard]] std::string close_with_unread(Ends& ends);
// The peer is gone when the queue is full: whoever waits for room must be told.
[[nodiscard]] std::string close_on_a_full_queue(Ends& ends);
// SO_LINGER 0.
[[nodiscard]] std::string abort_after_last_words(Ends& ends);
[[nodiscard]] std::string abort_with_unread(Ends& ends);
[[nodiscard]] std::string destroyed_by_the_administrator(Ends& ends);
// kill -9 of an application. Whatever it got out is whole, up to some byte.
[[nodiscard]] std::string killed_after_last_words(Ends& ends);
[[nodiscard]] std::string killed_while_it_sends(Ends& ends);
[[nodiscard]] std::string killed_while_it_reads(Ends& ends);
[[nodiscard]] std::string peer_closes_while_we_send(Ends& ends);

}  // namespace sidetrack::lab::endings
