// SPDX-License-Identifier: Apache-2.0
// Unregistered: when an engine that does not come to its agent is a problem, by a clock of the
// test's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/main/unregistered.h"

namespace sidetrack::agent {
namespace {

using namespace std::chrono_literals;
using Others = Unregistered::Others;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr Unregistered::Clock::time_point kStart{1h};

TEST(UnregisteredEngine, is_no_problem_while_it_may_still_come) {
  Unregistered engines;
  engines.look({{1, 4711}}, kStart);
  EXPECT_THAT(engines.problems(Others::kNone, kStart), IsEmpty());
  EXPECT_THAT(engines.problems(Others::kNone, kStart + 29s), IsEmpty());
}

TEST(UnregisteredEngine, is_a_problem_when_it_does_not) {
  Unregistered engines;
  engines.look({{1, 4711}}, kStart);
  engines.look({{1, 4711}}, kStart + 30s);
  const auto problems = engines.problems(Others::kNone, kStart + 30s);
  ASSERT_THAT(problems, SizeIs(1));
  EXPECT_EQ(problems[0].severity, "error");
  EXPECT_EQ(problems[0].object, "engine");
  EXPECT_EQ(problems[0].key, "engine_not_registered");
  EXPECT_THAT(problems[0].reason, HasSubstr("pid 4711"));
}

TEST(UnregisteredEngine, is_a_warning_beside_one_that_is_registered) {
  Unregistered engines;
  engines.look({{1, 4711}}, kStart);
  const auto problems = engines.problems(Others::kSome, kStart + 30s);
  ASSERT_THAT(problems, SizeIs(1));
  EXPECT_EQ(problems[0].severity, "warning");
}

TEST(UnregisteredEngine, that_came_has_its_time_again_when_the_agent_loses_it) {
  Unregistered engines;
  engines.look({{1, 4711}}, kStart);
  engines.look({}, kStart + 10s);
  engines.look({{1, 4711}}, kStart + 20s);
  EXPECT_THAT(engines.problems(Others::kNone, kStart + 40s), IsEmpty());
}

TEST(UnregisteredEngine, has_its_own_time_in_a_cell_that_another_had) {
  Unregistered engines;
  engines.look({{1, 4711}}, kStart);
  engines.look({{1, 4712}}, kStart + 20s);
  EXPECT_THAT(engines.problems(Others::kNone, kStart + 40s), IsEmpty());
}

}  // namespace
}  // namespace sidetrack::agent
