// SPDX-License-Identifier: Apache-2.0
// What is tried on a connection to see whether skipping TCP shows: each scenario says what the two
// applications saw. fast_*_test.cpp run them on plain TCP and past it, which must say the same;
// fast_naive_test.cpp with a program without guards, which must not. Thread rule: plain functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/dataplane/fast_node.h"
#include "tests/dataplane/held_receive.h"

namespace sidetrack::lab::scenarios {

// Something that happens in the middle; nothing on plain TCP.
using Step = std::function<void(Ends&)>;

// The client sends to a server that does not read; how that ends.
[[nodiscard]] std::string fill_a_sleeping_reader(Ends& ends, std::size_t message,
                                                 std::uint64_t most);
// The same with messages of a byte: whether those that waited past TCP were few.
[[nodiscard]] std::string send_many_short_messages(Ends& ends);
// The client's socket becomes another connection while bytes wait in it.
[[nodiscard]] std::string make_anew(Ends& ends);
// Options that come after the first bytes.
[[nodiscard]] std::string set_rcvlowat_late(Ends& ends);
[[nodiscard]] std::string set_peek_off_late(Ends& ends);
[[nodiscard]] std::string set_zerocopy_late(Ends& ends);
// FIONREAD while bytes wait, and again for others when those have been read.
[[nodiscard]] std::string ask_how_much_waits(Ends& ends);
// A recv() stops in the middle of a page fault; whether the sender goes on.
[[nodiscard]] std::string read_into_faulting_memory(Ends& ends);
// The same, and the sender is a process that is killed meanwhile; whether it ends.
[[nodiscard]] std::string kill_the_sender_of_a_faulting_reader(Ends& ends);
// Bytes wait in TCP's queue; the next may skip TCP from `past_tcp` on.
[[nodiscard]] std::string send_behind_unread_bytes(Ends& ends, const Step& past_tcp);
// A recv() has chosen TCP when the connection is put on the fast path. That
// also unlocks the reader, before or after. "missed": the machine let the recv() go on too soon.
using PutIn = std::function<void(Ends&, HeldReceive&)>;
[[nodiscard]] std::string receive_in_flight(Ends& ends, const PutIn& put_in, const Step& by_tcp);
// A thread sleeps in recv() since before O_NONBLOCK was set. Blocking ends.
[[nodiscard]] std::string sleep_in_receive(Ends& ends, const Step& past_tcp);
// A reader peeks until all of a header is there, in the middle of which the way changes.
[[nodiscard]] std::string peek_across_a_switch(Ends& ends, const Step& by_tcp);
// TCP is used to much when as much as is taken goes past it, and then by TCP, until that has
// arrived or the sender's timer has doubled; whether all is read "soon", or "late".
[[nodiscard]] std::string read_behind_a_full_buffer(Ends& ends, const Step& past_tcp,
                                                    const Step& by_tcp);
// A client blocks in recv() when its own half-close is acknowledged, then comes the answer: what
// its recv() said. `first`: before all.
[[nodiscard]] std::string wait_for_an_answer(Ends& ends, const Step& first);

// Messages of a byte: more than may wait past TCP, but no more behind than TCP sends at once. All
// have arrived then, and the reader has bytes in both queues, if it is on the fast path.
inline constexpr int kMoreThanWait = ST_FAST_MESSAGES + 5;
void fill_both_queues(const UniqueFd& sender);
// A reader that takes a short read for the last one once it knows of the end, as HAProxy does with
// EPOLLRDHUP and libuv with EPOLLHUP: "517 end".
[[nodiscard]] std::string read_until_end_is_known(const UniqueFd& reader);

// What one splice() of it into a pipe says: a number of bytes, or the errno's name.
[[nodiscard]] std::string splice_some(const UniqueFd& fd);
// `count` bytes, or what came of them.
[[nodiscard]] std::string receive_all(const UniqueFd& fd, std::size_t count);

}  // namespace sidetrack::lab::scenarios
