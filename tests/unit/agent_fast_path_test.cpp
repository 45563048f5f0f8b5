// SPDX-License-Identifier: Apache-2.0
// What the agent makes of a self-test's report.
#include <gtest/gtest.h>

#include "agent/main/fast_path.h"

namespace sidetrack::agent {
namespace {

struct Case {
  const char* name;
  Result<selftest::Report> report;
  bool uncharged;
  std::string problem;
};

selftest::Report report_of(bool passed, bool charges_reader) {
  return {.checks = {{.name = "order", .passed = passed, .detail = "seen"}},
          .charges_reader = charges_reader};
}

TEST(FastPath, is_on_by_default_only_where_readers_are_charged) {
  const std::vector<Case> cases = {
      {"passed and charges", report_of(true, true), false, ""},
      {"passed and charges, asked for", report_of(true, true), true, ""},
      {"passed and does not charge", report_of(true, false), false, "uncharged"},
      {"passed and does not charge, asked for", report_of(true, false), true, ""},
      {"failed", report_of(false, true), false, "self_test: order: seen"},
      {"failed, asked for", report_of(false, false), true, "self_test: order: seen"},
      {"an empty report", selftest::Report{}, true, "self_test: nothing was checked"},
      {"no report", make_error(ErrorCode::kIo, "it was killed"), true, "self_test: it was killed"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(problem_after(c.report, {.uncharged = c.uncharged}), c.problem) << c.name;
  }
}

TEST(FastPath, a_report_says_what_is_needed_to_use_it) {
  EXPECT_NE(selftest::to_table(report_of(true, true)).find("can be used here\n"),
            std::string::npos);
  EXPECT_NE(selftest::to_table(report_of(true, false)).find("by --fast-path uncharged\n"),
            std::string::npos);
  EXPECT_NE(selftest::to_table(report_of(false, false)).find("stays off here\n"),
            std::string::npos);
  const auto read = selftest::from_json(selftest::to_json(report_of(true, false)));
  ASSERT_TRUE(read.has_value());
  EXPECT_FALSE(read->charges_reader);
}

}  // namespace
}  // namespace sidetrack::agent
