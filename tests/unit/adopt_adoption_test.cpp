// SPDX-License-Identifier: Apache-2.0
// Adoption: which requests are made, in which order, and when.
#include "tests/unit/adopt_fixture.h"

namespace sidetrack::adopt {
namespace {

TEST_F(AdoptionTest, waits_for_probation_then_inserts_and_arms_both_ends) {
  nominate(make_pair(1));
  tick();
  EXPECT_EQ(asked(1, ST_ADOPT_LOOK), 1U);
  tick(kProbation - milliseconds(1));
  EXPECT_FALSE(is_in(1));
  EXPECT_EQ(adoption_.summaries()[kPodA].reason, ST_FAST_PROBATION);
  EXPECT_EQ(sockets_.noted[1], ST_FAST_PROBATION);
  EXPECT_EQ(adoption_.against(kPodA, kPodB, now_), ST_FAST_PROBATION);
  tick(milliseconds(1));
  EXPECT_TRUE(is_in(1));
  EXPECT_EQ(adoption_.against(kPodA, kPodB, now_), ST_FAST_NONE);
  EXPECT_EQ(adoption_.against(kPodA, std::nullopt, now_), ST_FAST_NONE);
  EXPECT_TRUE(sockets_.sockets[1].armed && sockets_.sockets[2].armed);
  EXPECT_EQ(adoption_.adopted(), 1U);
  // A pod's second connection need not wait.
  nominate(make_pair(11));
  tick();
  EXPECT_TRUE(is_in(11));
}

TEST_F(AdoptionTest, the_kernel_is_told_each_reason_once) {
  nominate(make_pair(1));
  sockets_.sockets[1].look = ST_FAST_YOUNG;
  tick();
  EXPECT_EQ(asked(1, ST_ADOPT_NOTE), 0U) << "what it says by itself";
  sockets_.sockets[1].look = ST_FAST_NONE;
  tick(seconds(1));
  EXPECT_EQ(sockets_.noted[1], ST_FAST_PROBATION);
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_OFF;
  for (int i = 0; i < 3; ++i) {
    adoption_.on_policy_changed(now_);
    tick(milliseconds(10));
  }
  EXPECT_EQ(sockets_.noted[1], ST_FAST_POD_OFF);
  EXPECT_EQ(asked(1, ST_ADOPT_NOTE), 2U);
}

// st_adopt writes another one when it puts a socket in.
TEST_F(AdoptionTest, the_kernel_is_told_a_reason_anew_after_the_pair_was_in) {
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_OFF;
  nominate(make_pair(1));
  tick();
  EXPECT_EQ(sockets_.noted[1], ST_FAST_POD_OFF);
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_AUTO;
  adoption_.on_policy_changed(now_);
  tick(kProbation);
  ASSERT_TRUE(is_in(1));
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_OFF;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_EQ(sockets_.noted[1], ST_FAST_POD_OFF);
}

TEST_F(AdoptionTest, what_messages_say_while_a_pair_leaves_is_not_the_last_word) {
  adopt(1);
  sockets_.sockets[2].busy = 1;
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_OFF;
  adoption_.on_policy_changed(now_);
  tick();
  ASSERT_TRUE(sockets_.sockets[2].in);
  sockets_.noted[1] = ST_FAST_UNARMED;  // by st_msg
  tick(seconds(1));
  ASSERT_FALSE(sockets_.sockets[2].in);
  EXPECT_EQ(sockets_.noted[1], ST_FAST_POD_OFF);
}

// That it closes says nothing of the time before.
TEST_F(AdoptionTest, the_kernel_is_not_told_that_a_connection_closes) {
  nominate(make_pair(1));
  tick();
  sockets_.sockets[1].look = sockets_.sockets[2].look = ST_FAST_STATE;
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_OFF;
  tick(kProbation);
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_AUTO;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_EQ(adoption_.summaries()[kPodA].reason, ST_FAST_STATE);
  EXPECT_EQ(sockets_.noted[1], ST_FAST_POD_OFF);
}

TEST_F(AdoptionTest, the_kernel_is_told_nothing_of_a_connection_without_a_flow_record) {
  nominate(make_pair(1, ST_PAIR_FROM_ENGINE));
  tick();
  EXPECT_EQ(adoption_.summaries()[kPodB].reason, ST_FAST_PROBATION);
  EXPECT_EQ(asked(1, ST_ADOPT_NOTE), 0U);
}

TEST_F(AdoptionTest, a_blocking_socket_is_refused_once_and_for_good) {
  const Candidate candidate = make_pair(1);
  sockets_.sockets[2].look = ST_FAST_BLOCKING;
  nominate(candidate);
  tick();
  sockets_.sockets[2].look = ST_FAST_NONE;
  tick(kProbation);
  EXPECT_FALSE(sockets_.sockets[1].in);
  EXPECT_EQ(adoption_.refused().at(ST_FAST_BLOCKING), 1U);
  EXPECT_EQ(adoption_.summaries()[kPodB].reason, ST_FAST_BLOCKING);
  EXPECT_EQ(sockets_.noted[1], ST_FAST_BLOCKING);
}

TEST_F(AdoptionTest, what_passes_is_looked_at_again) {
  const Candidate candidate = make_pair(1);
  sockets_.sockets[2].look = ST_FAST_NOT_ACCEPTED;
  nominate(candidate);
  tick();
  sockets_.sockets[2].look = ST_FAST_NONE;
  tick(seconds(1));
  tick(kProbation);
  EXPECT_TRUE(is_in(1));
}

TEST_F(AdoptionTest, a_connection_without_traffic_is_looked_at_for_as_long_as_it_lives) {
  const Candidate candidate = make_pair(1);
  sockets_.sockets[1].look = ST_FAST_YOUNG;
  nominate(candidate);
  for (int i = 0; i < 100; ++i) {
    tick(seconds(2));
  }
  EXPECT_LE(asked(1, ST_ADOPT_LOOK), 110U);
  sockets_.sockets[1].look = ST_FAST_NONE;
  tick(seconds(2));
  EXPECT_TRUE(is_in(1)) << "its pod's probation is over";
}

TEST_F(AdoptionTest, an_end_that_became_unsuitable_takes_the_other_out_again) {
  nominate(make_pair(1));
  tick();
  sockets_.sockets[2].look = ST_FAST_ZEROCOPY;
  tick(kProbation);  // the client's end went in
  tick(milliseconds(20));
  EXPECT_FALSE(sockets_.sockets[1].in);
  EXPECT_EQ(adoption_.refused().at(ST_FAST_ZEROCOPY), 1U);
}

TEST_F(AdoptionTest, what_passes_but_hinders_an_insertion_is_tried_again) {
  adopt(11);  // its pods' probation is over
  nominate(make_pair(1));
  sockets_.sockets[2].look = ST_FAST_SLEEPER;
  tick();
  EXPECT_EQ(sockets_.noted[1], ST_FAST_SLEEPER);
  sockets_.sockets[2].look = ST_FAST_NONE;
  sockets_.sockets[2].inserted = ST_FAST_SLEEPER;
  tick(seconds(1));  // the client's end went in
  EXPECT_EQ(asked(1, ST_ADOPT_INSERT), 1U);
  EXPECT_EQ(sockets_.noted[1], ST_FAST_SLEEPER);
  tick(milliseconds(20));
  EXPECT_FALSE(sockets_.sockets[1].in);
  sockets_.sockets[2].inserted = ST_FAST_NONE;
  tick(seconds(3));
  tick(milliseconds(20));
  EXPECT_TRUE(is_in(1));
  EXPECT_EQ(sockets_.noted[1], ST_FAST_UNARMED);
  EXPECT_TRUE(adoption_.refused().empty());
}

TEST_F(AdoptionTest, senders_are_disarmed_before_readers_are_released) {
  adopt(1);
  sockets_.sockets[2].busy = 3;
  adoption_.on_marked(2, now_);
  tick();
  EXPECT_TRUE(sockets_.sockets[2].in) << "bytes are on their way";
  for (int i = 0; i < 4; ++i) {
    tick(seconds(1));
  }
  EXPECT_FALSE(sockets_.sockets[1].in || sockets_.sockets[2].in);
  EXPECT_EQ(sockets_.released_before_disarm, 0U);
  EXPECT_EQ(adoption_.refused().at(ST_FAST_MARKED), 1U);
}

TEST_F(AdoptionTest, a_label_takes_out_and_lets_in_again) {
  adopt(1);
  pods_.pods[kPodB].row.fast_path = ST_FAST_PATH_OFF;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_FALSE(is_in(1));
  tick(milliseconds(50));
  EXPECT_EQ(adoption_.summaries()[kPodA].reason, ST_FAST_POD_OFF);
  pods_.pods[kPodB].row.fast_path = ST_FAST_PATH_AUTO;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_TRUE(is_in(1));
}

TEST_F(AdoptionTest, pods_of_two_namespaces_need_node_on_both) {
  pods_.pods[kPodB].row.namespace_slot = 2;
  nominate(make_pair(1));
  tick();
  tick(kProbation);
  EXPECT_FALSE(is_in(1));
  EXPECT_EQ(adoption_.summaries()[kPodA].reason, ST_FAST_OTHER_NAMESPACE);
  EXPECT_EQ(adoption_.against(kPodA, kPodB, now_), ST_FAST_OTHER_NAMESPACE);
  EXPECT_EQ(adoption_.against(kPodA, std::nullopt, now_), ST_FAST_NONE) << "to an engine";
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_NODE;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_FALSE(is_in(1));
  pods_.pods[kPodB].row.fast_path = ST_FAST_PATH_NODE;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_TRUE(is_in(1));
}

TEST_F(AdoptionTest, a_demoted_pod_leaves_and_its_workload_is_remembered) {
  adopt(1);
  pods_.pods[kPodB].demoted = ST_FAST_SPLICE;
  adoption_.on_demoted(kPodB, ST_FAST_SPLICE, now_);
  tick();
  EXPECT_FALSE(is_in(1));
  EXPECT_EQ(workloads_.demoted("shop/ReplicaSet/b"), ST_FAST_SPLICE);
  // The next replica.
  pods_.pods[300] = make_pod("shop/ReplicaSet/b");
  Candidate candidate = make_pair(21);
  candidate.end[ST_SIDE_SERVER].netns_cookie = 300;
  nominate(candidate);
  tick();
  tick(kProbation);
  EXPECT_FALSE(is_in(21));
  EXPECT_EQ(adoption_.summaries()[300].reason, ST_FAST_WORKLOAD);
}

TEST_F(AdoptionTest, an_agent_that_restarts_knows_what_is_adopted) {
  adopt(1);
  sockets_.noted[1] = ST_FAST_ZEROCOPY;  // by st_msg
  Adoption next({.enabled = true, .probation = kProbation}, sockets_, pods_, workloads_);
  next.restore({live(1, ST_SIDE_CLIENT), live(1, ST_SIDE_SERVER)}, now_);
  EXPECT_EQ(next.adopted(), 1U);
  EXPECT_EQ(sockets_.noted[1], ST_FAST_ZEROCOPY);
  next.on_policy_changed(now_);
  next.tick(now_);
  EXPECT_TRUE(is_in(1)) << "probation is for new ones";
  pods_.pods[kPodA].row.mode = ST_MODE_DISABLED;
  next.on_policy_changed(now_);
  next.tick(now_);
  EXPECT_FALSE(is_in(1));
}

TEST_F(AdoptionTest, an_agent_after_one_that_kept_no_reasons_says_that_adopted_ones_are_not_armed) {
  adopt(1);
  sockets_.noted.clear();
  Adoption next({.enabled = true, .probation = kProbation}, sockets_, pods_, workloads_);
  next.restore({live(1, ST_SIDE_CLIENT), live(1, ST_SIDE_SERVER)}, now_);
  EXPECT_EQ(sockets_.noted[1], ST_FAST_UNARMED);
}

TEST_F(AdoptionTest, half_an_adoption_is_completed_after_a_restart) {
  (void)make_pair(1);
  sockets_.sockets[1].in = true;
  adoption_.restore({live(1, ST_SIDE_CLIENT)}, now_);
  tick();
  EXPECT_TRUE(is_in(1));
  EXPECT_TRUE(sockets_.sockets[1].armed && sockets_.sockets[2].armed);
}

TEST_F(AdoptionTest, closed_connections_are_forgotten) {
  adopt(1);
  open_.clear();
  adoption_.scan(open_, now_);
  EXPECT_EQ(adoption_.adopted(), 0U);
  nominate(make_pair(11));
  sockets_.sockets.clear();
  tick();
  EXPECT_EQ(adoption_.summaries()[kPodA].waiting, 0U);
}

TEST_F(AdoptionTest, a_reader_that_does_not_come_back_is_told_again) {
  adopt(1);
  sockets_.sockets[2].drained = ST_FAST_READER_BUSY;
  adoption_.on_owed(2, now_);
  for (int i = 0; i < 5; ++i) {
    tick(milliseconds(10));
  }
  EXPECT_TRUE(sockets_.nudged.empty()) << "it has yet to read what comes first";
  sockets_.sockets[2].drained = ST_FAST_UNREAD;
  tick(milliseconds(10));
  EXPECT_TRUE(sockets_.nudged.empty()) << "it may be about to read";
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged, std::vector<std::uint64_t>{2});
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged.size(), 1U);
  // The next time it has read all by itself.
  sockets_.sockets[2].drained = ST_FAST_NONE;
  adoption_.on_owed(2, now_);
  tick(milliseconds(10));
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged.size(), 1U);
}

TEST_F(AdoptionTest, the_sender_of_a_fin_that_waits_is_told_when_it_can_go) {
  adopt(1);
  sockets_.sockets[2].drained = ST_FAST_READER_BUSY;
  adoption_.on_owed(2, now_);
  tick(milliseconds(10));
  EXPECT_TRUE(sockets_.nudged.empty()) << "its reader has yet to read what comes first";
  sockets_.sockets[2].drained = ST_FAST_FIN_WAITS;
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged, std::vector<std::uint64_t>{1});
  // The reader is looked after as before.
  sockets_.sockets[2].drained = ST_FAST_UNREAD;
  tick(milliseconds(10));
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged, (std::vector<std::uint64_t>{1, 2}));
}

// Taking out waits for what skipped TCP, not for what came behind it by TCP.
TEST_F(AdoptionTest, a_reader_that_was_taken_out_is_told_of_what_came_by_tcp) {
  adopt(1);
  adoption_.on_owed(2, now_);
  pods_.pods[kPodB].row.fast_path = ST_FAST_PATH_OFF;
  adoption_.on_policy_changed(now_);
  tick(milliseconds(0));
  ASSERT_FALSE(is_in(2));
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged, std::vector<std::uint64_t>{2});
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged.size(), 1U);
}

TEST_F(AdoptionTest, readers_get_room_for_the_window_once_they_are_in) {
  nominate(make_pair(1));
  tick();
  EXPECT_TRUE(sockets_.widened.empty());
  tick(kProbation);
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.widened.size(), 1U) << "one walk after the other";
  tick(seconds(1));
  tick(seconds(1));
  EXPECT_EQ(sockets_.widened, (std::vector<std::uint64_t>{kPodA, kPodB}));
}

TEST_F(AdoptionTest, a_namespace_that_adopts_all_the_time_does_not_keep_others_from_their_room) {
  adopt(1);
  tick(seconds(1));
  tick(seconds(1));
  sockets_.widened.clear();
  for (std::uint64_t i = 0; i < 4; ++i) {
    nominate(make_pair(11 + 2 * i));
    tick(milliseconds(100));
  }
  EXPECT_TRUE(std::ranges::count(sockets_.widened, kPodA) > 0);
  EXPECT_TRUE(std::ranges::count(sockets_.widened, kPodB) > 0);
}

TEST_F(AdoptionTest, a_conflict_ends_the_connection) {
  adopt(1);
  adoption_.on_conflict(kPodB, 2);
  EXPECT_EQ(sockets_.destroyed, std::vector<std::uint64_t>{2});
}

TEST_F(AdoptionTest, a_conflict_is_ended_once_and_tried_until_it_is) {
  adopt(1);
  sockets_.can_destroy = false;
  adoption_.on_conflict(kPodB, 2);
  sockets_.can_destroy = true;
  adoption_.on_marks({{2, {.reason = ST_FAST_CONFLICT}}}, now_);
  adoption_.on_conflict(kPodB, 2);
  EXPECT_EQ(sockets_.destroyed, (std::vector<std::uint64_t>{2, 2}));
  EXPECT_EQ(adoption_.refused().at(ST_FAST_CONFLICT), 1U);
}

// Events may be lost: what the kernel has counts.
TEST_F(AdoptionTest, marks_that_nobody_told_of_are_found) {
  adopt(1);
  adopt(11);
  adopt(21);
  adoption_.on_marks({{99, {.reason = ST_FAST_MARKED}},
                      {12, {.reason = ST_FAST_MARKED}},
                      {22, {.reason = ST_FAST_CONFLICT}}},
                     now_);
  tick();
  EXPECT_TRUE(is_in(1));
  EXPECT_FALSE(is_in(11));
  EXPECT_EQ(sockets_.destroyed, std::vector<std::uint64_t>{22});
}

TEST_F(AdoptionTest, a_demotion_that_nobody_told_of_is_remembered) {
  adopt(1);
  pods_.pods[kPodB].demoted = ST_FAST_SPLICE;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_FALSE(is_in(1));
  EXPECT_EQ(workloads_.demoted("shop/ReplicaSet/b"), ST_FAST_SPLICE);
}

TEST_F(AdoptionTest, an_end_that_could_not_be_visited_is_visited_again_before_the_pair_is_out) {
  adopt(1);
  sockets_.sockets[2].unreachable = 2;
  adoption_.on_demoted(kPodA, ST_FAST_MARKED, now_);
  tick();
  EXPECT_TRUE(sockets_.sockets[2].in);
  tick(seconds(1));
  tick(seconds(1));
  EXPECT_FALSE(sockets_.sockets[2].in);
}

}  // namespace
}  // namespace sidetrack::adopt
