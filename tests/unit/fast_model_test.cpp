// SPDX-License-Identifier: Apache-2.0
// With all guards of the fast path no interleaving reorders, loses or doubles a byte; without any
// one of them, but for a second line that is told at the end, some interleaving does, which is how
// we know that the model sees such things.
#include "tests/unit/fast_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

namespace sidetrack::model {
namespace {

void expect_right(const Setup& setup) {
  const Outcome outcome = explore(setup);
  EXPECT_EQ(outcome.wrong, Wrong::kNothing)
      << fmt::format("{}\n{}", outcome.what, fmt::join(outcome.run, "\n"));
  EXPECT_TRUE(outcome.ends) << "the model never gets to its end";
  EXPECT_TRUE(outcome.skips_tcp) << "nothing ever skips TCP";
  EXPECT_EQ(outcome.hands_off, setup.relay);
  EXPECT_EQ(outcome.resets, setup.aborts);
  EXPECT_EQ(outcome.overflows, setup.room != 0);
  testing::Test::RecordProperty("states", static_cast<int>(outcome.states));
}

// What goes wrong first is this and nothing else.
void expect_wrong(Wrong wrong, const Setup& setup) {
  const Outcome outcome = explore(setup);
  EXPECT_EQ(outcome.wrong, wrong) << outcome.states << " states. " << outcome.what;
}

TEST(DirectPair, never_reorders) {
  expect_right({.messages = 4});
}

TEST(DirectPair, reorders_unless_all_of_tcp_was_read) {
  expect_wrong(Wrong::kOrder, {.guards = {.peer_all_read = false}});
}

TEST(DirectPair, reorders_if_a_recv_was_in_flight_when_it_was_put_in) {
  expect_wrong(Wrong::kOrder, {.guards = {.peer_armed = false}});
}

TEST(DirectPair, may_be_taken_out_and_put_in_at_any_time) {
  expect_right({.leaves = true});
}

TEST(DirectPair, loses_bytes_if_it_is_taken_out_under_a_sender) {
  expect_wrong(Wrong::kLost, {.leaves = true, .guards = {.release_sees_senders = false}});
}

// Both ends leave: the sender may be out, and still in a send() that began when it was in.
TEST(DirectPair, loses_bytes_if_a_sender_that_was_taken_out_before_is_taken_for_idle) {
  expect_wrong(Wrong::kLost, {.leaves = true, .guards = {.release_sees_leavers = false}});
}

TEST(DirectPair, loses_bytes_if_it_is_taken_out_with_bytes_in_its_queue) {
  expect_wrong(Wrong::kLost, {.leaves = true, .guards = {.release_sees_queue = false}});
}

// A sender that began after the first look, found bytes in the queue and so went on past TCP.
TEST(DirectPair, loses_bytes_if_it_is_taken_out_though_bytes_came_meanwhile) {
  expect_wrong(Wrong::kLost,
               {.leaves = true, .messages = 4, .guards = {.release_sees_counts = false}});
}

TEST(Relay, never_reorders) {
  expect_right({.relay = true, .messages = 4});
}

TEST(Relay, reorders_unless_the_engine_has_read_all_of_tcp) {
  expect_wrong(Wrong::kOrder, {.relay = true, .guards = {.peer_all_read = false}});
}

TEST(Relay, reorders_unless_the_far_reader_has_read_all_of_tcp) {
  expect_wrong(Wrong::kOrder, {.relay = true, .guards = {.far_all_read = false}});
}

TEST(Relay, reorders_unless_the_engine_is_empty) {
  expect_wrong(Wrong::kOrder, {.relay = true, .guards = {.relay_empty = false}});
}

TEST(Relay, reorders_if_a_recv_of_the_engine_was_in_flight) {
  expect_wrong(Wrong::kOrder, {.relay = true, .guards = {.peer_armed = false}});
}

TEST(Relay, ends_too_soon_if_a_recv_of_the_far_reader_was_in_flight) {
  expect_wrong(Wrong::kEnd, {.relay = true, .guards = {.far_armed = false}});
}

TEST(Relay, reorders_if_the_slot_is_read_last) {
  expect_wrong(Wrong::kOrder, {.relay = true, .guards = {.slot_first = false}});
}

TEST(Relay, reorders_if_the_engine_counts_before_it_sends) {
  expect_wrong(Wrong::kOrder, {.relay = true, .guards = {.counts_plain_late = false}});
}

// Why the engine counts after send(): what a program has redirected is not in the queue yet.
TEST(Relay, reorders_if_redirected_bytes_are_counted_before_they_are_enqueued) {
  expect_right({.relay = true, .engine_sends_fast = true});
  expect_right({.relay = true, .guards = {.counts_redirected_late = false}});
  expect_wrong(
      Wrong::kOrder,
      {.relay = true, .engine_sends_fast = true, .guards = {.counts_redirected_late = false}});
}

TEST(Relay, may_be_taken_out_and_put_in_at_any_time) {
  expect_right({.relay = true, .leaves = true, .messages = 2});
  expect_right({.relay = true, .was_out = true, .messages = 5});
}

TEST(Relay, loses_bytes_if_it_is_linked_one_way_only) {
  expect_wrong(
      Wrong::kLost,
      {.relay = true, .leaves = true, .messages = 2, .guards = {.linked_both_ways = false}});
}

// The engine's slots count all that it ever forwarded. If what was redirected before is not known,
// as many bytes inside the engine make up for it.
TEST(Relay, reorders_if_what_was_redirected_before_it_left_is_forgotten) {
  expect_wrong(Wrong::kOrder,
               {.relay = true, .was_out = true, .messages = 5, .guards = {.keeps_sent = false}});
}

// FAST -> TCP because too much waits, and back.
class Room : public testing::TestWithParam<Bound> {
 protected:
  static model::Setup setup(bool relay, const Guards& guards = {}) {
    return {.relay = relay,
            .room = 1,
            .bound = GetParam(),
            .messages = relay ? 4 : 5,
            .guards = guards};
  }
};

TEST_P(Room, is_never_exceeded_and_its_end_reorders_nothing) {
  expect_right(setup(false));
  expect_right(setup(true));
  model::Setup leaves = setup(false);
  leaves.leaves = true;
  expect_right(leaves);
}

TEST_P(Room, is_exceeded_unless_it_is_looked_at) {
  expect_wrong(Wrong::kTooMany, setup(false, {.room = false}));
  expect_wrong(Wrong::kTooMany, setup(true, {.room = false}));
}

TEST_P(Room, makes_no_other_guard_needless) {
  expect_wrong(Wrong::kOrder, setup(false, {.peer_all_read = false}));
  expect_wrong(Wrong::kOrder, setup(false, {.peer_armed = false}));
  expect_wrong(Wrong::kOrder, setup(true, {.peer_all_read = false}));
  expect_wrong(Wrong::kOrder, setup(true, {.far_all_read = false}));
  expect_wrong(Wrong::kOrder, setup(true, {.relay_empty = false}));
  expect_wrong(Wrong::kOrder, setup(true, {.slot_first = false}));
  expect_wrong(Wrong::kOrder, setup(true, {.counts_plain_late = false}));
}

INSTANTIATE_TEST_SUITE_P(, Room,
                         testing::Values(Bound::kCharged, Bound::kUncharged, Bound::kMessages),
                         [](const auto& bound) {
                           return std::string(bound.param == Bound::kCharged     ? "charged"
                                              : bound.param == Bound::kUncharged ? "uncharged"
                                                                                 : "messages");
                         });

// A thread may decide while what the other has redirected is not in the queue yet.
TEST(TwoThreads, have_their_messages_in_order) {
  expect_right({.two_threads = true, .messages = 3});
  expect_right({.leaves = true, .two_threads = true, .messages = 2});
  expect_right({.two_threads = true, .room = 1, .messages = 3});
  expect_right({.relay = true, .two_threads = true, .messages = 2});
}

TEST(TwoThreads, need_the_same_guards) {
  expect_wrong(Wrong::kOrder,
               {.two_threads = true, .messages = 2, .guards = {.peer_all_read = false}});
  expect_wrong(Wrong::kOrder,
               {.two_threads = true, .messages = 2, .guards = {.peer_armed = false}});
  expect_wrong(Wrong::kLost, {.leaves = true,
                              .two_threads = true,
                              .messages = 1,
                              .guards = {.release_sees_senders = false}});
  for (const Guards& guards : {Guards{.far_all_read = false}, Guards{.relay_empty = false},
                               Guards{.slot_first = false}, Guards{.counts_plain_late = false}}) {
    expect_wrong(Wrong::kOrder,
                 {.relay = true, .two_threads = true, .messages = 2, .guards = guards});
  }
}

TEST(End, is_known_too_soon_unless_it_waits) {
  expect_wrong(Wrong::kEndKnown, {.guards = {.fin_waits = false}});
  expect_wrong(Wrong::kEndKnown, {.relay = true, .guards = {.fin_waits = false}});
}

TEST(Reset, is_told_to_every_later_send) {
  expect_right({.aborts = true, .messages = 4});
  expect_right({.relay = true, .aborts = true});
}

// The reset is still under way, and the reader looks as if nothing had happened.
TEST(Reset, is_not_told_unless_the_sender_is_looked_at) {
  expect_wrong(Wrong::kAfterReset, {.aborts = true, .guards = {.sender_allows = false}});
  expect_wrong(Wrong::kAfterReset,
               {.relay = true, .aborts = true, .guards = {.sender_allows = false}});
}

TEST(Switch, hides_nothing_from_a_reader_that_peeks) {
  expect_right({.switches = true, .messages = 5});
  expect_right({.relay = true, .switches = true});
}

TEST(Switch, hides_bytes_unless_it_waits_for_the_reader) {
  expect_wrong(Wrong::kHidden, {.switches = true, .guards = {.denied_now = false}});
  expect_wrong(Wrong::kHidden, {.relay = true, .switches = true, .guards = {.denied_now = false}});
}

// What no interleaving needs, beside the guards above: whoever is armed or linked has a reader that
// is in, and a reader is taken out only when nobody brings it anything; only its sender resets it,
// whose own state says so first. (Nor its cookie: the SOCKHASH finds readers by it, so that another
// socket at the same place is found by nobody. There is one connection in the model.) They are
// there for what the model leaves out: readers that close, and sockets that are freed.
TEST(SecondLine, a_reader_is_asked_whether_it_is_in) {
  expect_right({.leaves = true, .guards = {.reader_adopted = false}});
  expect_right({.relay = true, .leaves = true, .messages = 2, .guards = {.reader_adopted = false}});
}

TEST(SecondLine, a_reader_is_asked_for_its_state) {
  expect_right({.aborts = true, .messages = 4, .guards = {.reader_state = false}});
  expect_right({.relay = true, .aborts = true, .guards = {.reader_state = false}});
}

}  // namespace
}  // namespace sidetrack::model
