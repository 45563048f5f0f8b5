// SPDX-License-Identifier: Apache-2.0
// An explicit-state model of one connection on the fast path: sender A, reader B, and between them
// nothing (a direct pair) or a relay E_a -> engine -> E_b. Every step that another CPU can see is
// one action; all interleavings are tried. What may skip TCP is decided by sidetrack/fast_rules.h.
//
// Messages are one byte and numbered: B must read 1, 2, 3 ... and then the end of the stream. One
// thread sends and one reads on each socket; or two send on A's, and those of each come in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sidetrack::model {

// Which guards stand. All true is the product.
struct Guards {
  bool peer_all_read = true;           // TCP -> FAST to the peer: all of TCP was read
  bool far_all_read = true;            // the same of the engine's leg and the far reader
  bool relay_empty = true;             // handoff: nothing is inside the engine
  bool peer_armed = true;              // the peer has read since both were put in
  bool far_armed = true;               // the far reader has
  bool slot_first = true;              // the slot is read before the leg and the far reader
  bool counts_plain_late = true;       // the engine adds to its slot after send() by TCP returned
  bool counts_redirected_late = true;  // ... after what its own program redirected is enqueued
  bool release_sees_senders = true;    // a reader is not taken out while a sender is in a call ...
  bool release_sees_leavers = true;    // ... also in one of a sender that was taken out before ...
  bool release_sees_queue = true;      // ... nor while bytes wait ...
  bool release_sees_counts = true;     // ... nor if any skipped TCP during the look
  bool linked_both_ways = true;  // ... and the far reader knows who sends to it past the engine
  bool sender_allows = true;     // errors come from TCP
  bool reader_adopted = true;    // who is not in is not sent to past TCP
  bool reader_state = true;      // nor is one that was reset
  bool denied_now = true;        // a switch waits until the reader's queue is empty
  bool room = true;              // only so many messages may wait past TCP
  bool fin_waits = true;         // for a reader of both queues
  bool keeps_sent = true;        // what was redirected to the engine is known when A is back
};

// By what st_room() knows how many messages wait.
enum class Bound {
  kCharged,    // the memory that the kernel charges the reader
  kUncharged,  // the bytes since the reader's queue was seen empty
  kMessages,   // the messages since then
};

struct Setup {
  bool relay = false;
  bool leaves = false;  // all may be taken out and put in again, at any time
  bool was_out =
      false;            // a relay of which one byte went by TCP and one past it, before all was out
  bool aborts = false;  // A may be reset at any time
  bool switches = false;           // policy may change at any time, and B reads with MSG_PEEK first
  bool engine_sends_fast = false;  // the product never does
  bool two_threads = false;        // send, each so many messages
  int room = 0;                    // messages that may wait past TCP; 0 = any number
  Bound bound = Bound::kCharged;
  int messages = 3;
  Guards guards{};
};

enum class Wrong {
  kNothing,
  kOrder,       // B read a message before an earlier one
  kEnd,         // B read the end before a message
  kLost,        // a byte is in no queue that anyone reads
  kAfterReset,  // A's send() did not fail after the reset of its connection
  kTooMany,     // more wait past TCP than there is room for
  kHidden,      // B peeks, and does not see a message that has come
  kEndKnown,    // a reader knows of the end, and needs two calls for what is before it
};

struct Outcome {
  std::size_t states = 0;
  bool ends = false;       // a run was found in which B has read everything
  bool skips_tcp = false;  // ... in which bytes skipped TCP
  bool hands_off = false;  // ... past the engine
  bool overflows = false;  // ... and a message went by TCP for want of room
  bool resets = false;     // one that was reset after bytes skipped TCP
  Wrong wrong = Wrong::kNothing;
  std::string what;              // in words
  std::vector<std::string> run;  // the shortest way there
};

[[nodiscard]] Outcome explore(const Setup& setup);

}  // namespace sidetrack::model
