// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "sidetrack/cli/origins.h"

namespace sidetrack::cli {
namespace {

TEST(CliOrigins, variables_and_options_have_one_name_each) {
  EXPECT_EQ(option_of_variable("SIDETRACK_STATE_DIR"), "state-dir");
  EXPECT_EQ(option_of_variable("STATE_DIR"), "");
  EXPECT_EQ(variable_of_option("state-dir"), "SIDETRACK_STATE_DIR");
}

TEST(CliOrigins, are_told_of_the_options_that_a_message_names) {
  Origins origins;
  origins.note("http", "SIDETRACK_HTTP");
  origins.note("fast-path", "--config /c");
  const auto explained = [&origins](const char* message) {
    return origins.explain(make_error(ErrorCode::kInvalid, message)).message;
  };
  EXPECT_EQ(explained("--http 'x': ADDR:PORT is meant"),
            "--http 'x': ADDR:PORT is meant (--http is set by SIDETRACK_HTTP)");
  EXPECT_EQ(explained("for option '--fast-path' is invalid"),
            "for option '--fast-path' is invalid (--fast-path is set by --config /c)");
  EXPECT_EQ(explained("option 'http' is invalid"),
            "option 'http' is invalid (--http is set by SIDETRACK_HTTP)");
  EXPECT_EQ(explained("--fast-path-window '1'"), "--fast-path-window '1'");
  EXPECT_EQ(explained("--fast-path-window and --fast-path"),
            "--fast-path-window and --fast-path (--fast-path is set by --config /c)");
  EXPECT_EQ(explained("no memory"), "no memory");
  EXPECT_EQ(origins.explain(make_error(ErrorCode::kInvalid, "--http")).code, ErrorCode::kInvalid);
}

TEST(CliOrigins, the_first_one_counts) {
  Origins origins;
  origins.note("http", "SIDETRACK_HTTP");
  origins.note("http", "--config /c");
  EXPECT_EQ(origins.explain(make_error(ErrorCode::kInvalid, "--http")).message,
            "--http (--http is set by SIDETRACK_HTTP)");
}

}  // namespace
}  // namespace sidetrack::cli
