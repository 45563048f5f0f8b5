// SPDX-License-Identifier: Apache-2.0
// Of many problems some are logged, and where the others are only if they are there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "agent/main/problem_log.h"
#include "sidetrack/log/log.h"

namespace sidetrack::agent {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

std::string logged(std::size_t problems, StatusHas has) {
  CaptureStderr();
  start_log(LogLevel::kInfo, LogFormat::kText);
  log_problems("policy", std::vector<kube::Problem>(problems, {.object = "Pod/shop/web"}), has);
  return GetCapturedStderr();
}

TEST(ProblemLog, has_the_first_hundred_and_how_many_more_there_are) {
  EXPECT_THAT(logged(100, StatusHas::kAll), Not(HasSubstr("more_problems")));
  EXPECT_THAT(logged(103, StatusHas::kAll),
              EndsWith(" event=more_problems problems=3 detail=\"sidetrackctl status -o json has "
                       "all\"\n"));
}

TEST(ProblemLog, does_not_send_people_where_not_all_are) {
  EXPECT_THAT(logged(103, StatusHas::kSome), EndsWith(" event=more_problems problems=3\n"));
}

}  // namespace
}  // namespace sidetrack::agent
