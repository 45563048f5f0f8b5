// SPDX-License-Identifier: Apache-2.0
// Whether a connection to an address ends at a listener, and whether somebody takes it there.
#include <gtest/gtest.h>

#include "agent/main/external_engine.h"

namespace sidetrack::agent {
namespace {

struct Row {
  const char* name;
  const char* listener;
  bool v6_only;
  const char* address;
  bool listens;
};

class ListensOn : public ::testing::TestWithParam<Row> {};

TEST_P(ListensOn, is_as_the_kernel_would_decide) {
  const NodeListener listener{.address = policy::parse_address(GetParam().listener).value(),
                              .port = 15001,
                              .v6_only = GetParam().v6_only};
  EXPECT_EQ(listens_on(listener, {.address = policy::parse_address(GetParam().address).value(),
                                  .port = 15001}),
            GetParam().listens);
}

INSTANTIATE_TEST_SUITE_P(All, ListensOn,
                         ::testing::Values(Row{"its_own_v4", "10.1.2.3", false, "10.1.2.3", true},
                                           Row{"another_v4", "10.1.2.4", false, "10.1.2.3", false},
                                           Row{"any_v4", "0.0.0.0", false, "10.1.2.3", true},
                                           Row{"any_v4_not_for_v6", "0.0.0.0", false, "fd00::1",
                                               false},
                                           Row{"its_own_v6", "fd00::1", false, "fd00::1", true},
                                           Row{"any_v6", "::", false, "fd00::1", true},
                                           Row{"any_v6_also_for_v4", "::", false, "10.1.2.3", true},
                                           Row{"any_v6_only", "::", true, "10.1.2.3", false},
                                           Row{"any_v6_only_for_v6", "::", true, "fd00::1", true}),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(ListensOnPort, needs_the_same_port) {
  const st_addr address = policy::parse_address("10.1.2.3").value();
  EXPECT_FALSE(
      listens_on({.address = address, .port = 15002}, {.address = address, .port = 15001}));
}

constexpr std::uint64_t kSecond = ST_HEARTBEAT_STALE_NS;

TEST(AcceptQueueTest, is_stuck_when_some_have_waited_for_a_second_and_none_was_accepted) {
  AcceptQueue queue;
  EXPECT_FALSE(queue.look(100, 0, 5 * kSecond));
  EXPECT_FALSE(queue.look(101, 1, 6 * kSecond)) << "it may have come just now";
  EXPECT_FALSE(queue.look(107, 7, 7 * kSecond - 1));
  EXPECT_TRUE(queue.look(108, 8, 7 * kSecond));
  EXPECT_TRUE(queue.look(108, 8, 9 * kSecond));
  EXPECT_FALSE(queue.look(108, 0, 10 * kSecond));
}

TEST(AcceptQueueTest, is_stuck_until_all_who_waited_were_accepted) {
  AcceptQueue queue;
  EXPECT_FALSE(queue.look(101, 1, kSecond));
  EXPECT_TRUE(queue.look(108, 8, 2 * kSecond));
  EXPECT_TRUE(queue.look(108, 7, 2 * kSecond + 1)) << "one was accepted";
  EXPECT_TRUE(queue.look(112, 5, 2 * kSecond + 2));
  EXPECT_FALSE(queue.look(112, 4, 2 * kSecond + 3)) << "those who wait came later";
  EXPECT_FALSE(queue.look(112, 4, 3 * kSecond + 2));
  EXPECT_TRUE(queue.look(112, 4, 3 * kSecond + 3));
}

TEST(AcceptQueueTest, is_not_stuck_while_it_moves_however_long_it_is) {
  AcceptQueue queue;
  for (std::uint64_t i = 0; i < 10; ++i) {
    EXPECT_FALSE(queue.look(100 + i, 50, i * kSecond / 2)) << "as many come as are accepted";
    EXPECT_FALSE(queue.look(100 + i, 50, i * kSecond / 2 + 1)) << "and none meanwhile";
  }
}

// What arrives between the two readings counts as waiting only.
TEST(AcceptQueueTest, is_not_misled_by_what_arrives_during_a_look) {
  AcceptQueue queue;
  EXPECT_FALSE(queue.look(100, 5, kSecond));
  EXPECT_FALSE(queue.look(100, 8, kSecond + 1));
  EXPECT_TRUE(queue.look(103, 8, 2 * kSecond)) << "95 accepted at first, 95 now";
}

TEST(AcceptQueueTest, is_never_stuck_when_nobody_was_seen_to_arrive) {
  AcceptQueue queue;
  EXPECT_FALSE(queue.look(0, 3, kSecond));
  EXPECT_FALSE(queue.look(0, 3, 9 * kSecond));
}

}  // namespace
}  // namespace sidetrack::agent
