// SPDX-License-Identifier: Apache-2.0
// Relays: the two pairs of one connection through an engine, joined and parted.
#include "tests/unit/adopt_fixture.h"

namespace sidetrack::adopt {
namespace {

using RelaysTest = AdoptionTest;

// The relay of client 1 -> (2, 31) -> 32.
TEST_F(RelaysTest, a_link_joins_the_two_applications_of_a_relay) {
  adopt(1, ST_PAIR_TO_ENGINE);
  adoption_.on_link({.client_leg = 2, .server_leg = 31, .index = 5}, now_);
  tick();
  EXPECT_FALSE(sockets_.sockets[1].link);
  adopt(31, ST_PAIR_FROM_ENGINE);
  tick();
  ASSERT_TRUE(sockets_.sockets[1].link && sockets_.sockets[32].link);
  EXPECT_TRUE(hands_off());
  EXPECT_EQ(sockets_.sockets[1].link->slot, 10U);
  EXPECT_EQ(sockets_.sockets[1].link->leg.cookie, 31U);
  EXPECT_EQ(sockets_.sockets[1].link->far.cookie, 32U);
  EXPECT_EQ(sockets_.sockets[32].link->slot, 11U);
  EXPECT_EQ(sockets_.sockets[32].link->leg.cookie, 2U);
  EXPECT_EQ(sockets_.sockets[32].link->far.cookie, 1U);
  EXPECT_EQ(sockets_.sockets[32].link->client_key.client_first, 1U);
  // One of both leaves: the other application sends past the engine to it, so it leaves too.
  adoption_.on_marked(32, now_);
  tick();
  EXPECT_FALSE(is_in(1) || is_in(31));
}

// Half a link is none: a reader that does not know its far sender would be taken out under it.
TEST_F(RelaysTest, a_relay_that_can_be_linked_one_way_only_hands_nothing_off) {
  adopt(1, ST_PAIR_TO_ENGINE);
  adopt(31, ST_PAIR_FROM_ENGINE);
  sockets_.sockets[32].link_answer = ST_FAST_RELAY_GONE;
  adoption_.on_link({.client_leg = 2, .server_leg = 31, .index = 5}, now_);
  tick();
  EXPECT_TRUE(sockets_.sockets[1].link);
  EXPECT_FALSE(sockets_.sockets[1].hands_off || sockets_.sockets[32].hands_off);
  EXPECT_EQ(adoption_.refused().at(ST_FAST_RELAY_GONE), 1U);
  tick(seconds(2));
  EXPECT_EQ(asked(1, ST_ADOPT_LINK), 1U) << "it stays so";
}

TEST_F(RelaysTest, an_end_of_a_relay_that_could_not_be_visited_is_linked_later) {
  adopt(1, ST_PAIR_TO_ENGINE);
  adopt(31, ST_PAIR_FROM_ENGINE);
  sockets_.sockets[32].link_answer = ST_FAST_INTERNAL;
  adoption_.on_link({.client_leg = 2, .server_leg = 31, .index = 5}, now_);
  tick();
  EXPECT_FALSE(sockets_.sockets[1].hands_off || sockets_.sockets[32].hands_off);
  sockets_.sockets[32].link_answer = ST_FAST_NONE;
  tick(seconds(2));
  EXPECT_TRUE(hands_off());
  EXPECT_TRUE(adoption_.refused().empty());
}

TEST_F(RelaysTest, a_relay_that_is_none_is_not_linked) {
  adopt(1, ST_PAIR_DIRECT);
  adopt(31, ST_PAIR_FROM_ENGINE);
  adoption_.on_link({.client_leg = 2, .server_leg = 31, .index = 5}, now_);
  tick();
  EXPECT_EQ(asked(1, ST_ADOPT_LINK) + asked(2, ST_ADOPT_LINK), 0U);
}

TEST_F(RelaysTest, a_relay_is_linked_again_when_both_pairs_are_back) {
  adopt(1, ST_PAIR_TO_ENGINE);
  adopt(31, ST_PAIR_FROM_ENGINE);
  adoption_.on_link({.client_leg = 2, .server_leg = 31, .index = 5}, now_);
  tick();
  ASSERT_TRUE(hands_off());
  for (int round = 0; round < 2; ++round) {
    pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_OFF;
    adoption_.on_policy_changed(now_);
    tick();
    EXPECT_FALSE(is_in(1));
    tick(seconds(1));
    EXPECT_FALSE(hands_off());
    pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_AUTO;
    adoption_.on_policy_changed(now_);
    tick();
    EXPECT_TRUE(is_in(1) && is_in(31));
    EXPECT_TRUE(hands_off()) << round;
    EXPECT_EQ(sockets_.sockets[32].link->slot, 11U);
  }
  // By an agent that has only read what is adopted.
  Adoption next({.enabled = true, .probation = kProbation}, sockets_, pods_, workloads_);
  next.restore(
      {live(1, ST_SIDE_CLIENT, ST_PAIR_TO_ENGINE, 31), live(1, ST_SIDE_SERVER, ST_PAIR_TO_ENGINE),
       live(31, ST_SIDE_CLIENT, ST_PAIR_FROM_ENGINE),
       live(31, ST_SIDE_SERVER, ST_PAIR_FROM_ENGINE, 2)},
      now_);
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_OFF;
  next.on_policy_changed(now_);
  next.tick(now_);
  EXPECT_FALSE(is_in(1));
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_AUTO;
  next.on_policy_changed(now_);
  next.tick(now_);
  EXPECT_TRUE(hands_off());
  EXPECT_EQ(sockets_.sockets[32].link->slot, 11U);
}

}  // namespace
}  // namespace sidetrack::adopt
