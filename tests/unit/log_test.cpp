// SPDX-License-Identifier: Apache-2.0
// A line of the log is one line, whatever its values are.
#include "sidetrack/log/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "sidetrack/unique_fd.h"

namespace sidetrack {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

std::string line(LogFormat format, std::initializer_list<LogField> fields) {
  CaptureStderr();
  start_log(LogLevel::kInfo, format);
  log_event(LogLevel::kWarn, "policy", "problem", fields);
  return GetCapturedStderr();
}

TEST(Log, has_times_in_utc_and_plain_values_as_they_are) {
  EXPECT_THAT(line(LogFormat::kText, {{"object", "Pod/shop/web"}, {"pid", 7}, {"known", true}}),
              MatchesRegex("time=....-..-..T..:..:..\\....Z level=warning component=policy "
                           "event=problem object=Pod/shop/web pid=7 known=true\n"));
}

TEST(Log, quotes_what_could_pass_for_another_line_or_field) {
  EXPECT_THAT(line(LogFormat::kText, {{"value", "80\ntime=now level=error"}}),
              EndsWith(" value=\"80\\ntime=now level=error\"\n"));
  EXPECT_THAT(line(LogFormat::kText, {{"value", "\x1b[2J"}}), EndsWith(" value=\"\\u001b[2J\"\n"));
  EXPECT_THAT(line(LogFormat::kText, {{"value", "a\" b=\"c"}}),
              EndsWith(" value=\"a\\\" b=\\\"c\"\n"));
  EXPECT_THAT(line(LogFormat::kText, {{"value", "\u202e\x7f\u009b"}}),
              EndsWith(" value=\"\\u202e\\u007f\\u009b\"\n"));
  EXPECT_THAT(line(LogFormat::kText, {{"value", "\xff"}}), EndsWith(" value=\"\\ufffd\"\n"));
  EXPECT_THAT(line(LogFormat::kText, {{"value", ""}}), EndsWith(" value=\"\"\n"));
}

TEST(Log, has_fields_in_json) {
  const std::string text =
      line(LogFormat::kJson, {{"object", "Pod/shop/web"}, {"value", "a\"\n\xff\x1b"}});
  const auto parsed = nlohmann::json::parse(text);
  EXPECT_THAT(parsed["time"].get<std::string>(), MatchesRegex("....-..-..T..:..:..\\....Z"));
  EXPECT_EQ(parsed["level"], "warning");
  EXPECT_EQ(parsed["component"], "policy");
  EXPECT_EQ(parsed["event"], "problem");
  EXPECT_EQ(parsed["object"], "Pod/shop/web");
  EXPECT_EQ(parsed["value"], "a\"\n\xef\xbf\xbd\x1b");
  EXPECT_THAT(text, HasSubstr("\\n")) << "and in one line";
}

TEST(Log, says_nothing_below_its_level) {
  CaptureStderr();
  start_log(LogLevel::kError, LogFormat::kText);
  log_event(LogLevel::kWarn, "policy", "problem");
  set_log_level(LogLevel::kWarn);
  log_event(LogLevel::kWarn, "policy", "heard");
  EXPECT_THAT(GetCapturedStderr(), EndsWith("component=policy event=heard\n"));
}

TEST(Log, does_not_fail_where_nothing_can_be_written) {
  const UniqueFd before(::dup(STDERR_FILENO));
  const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_GE(::dup2(full.get(), STDERR_FILENO), 0);
  start_log(LogLevel::kInfo, LogFormat::kText);
  EXPECT_NO_THROW(log_event(LogLevel::kWarn, "policy", "problem"));
  ASSERT_GE(::dup2(before.get(), STDERR_FILENO), 0);
}

}  // namespace
}  // namespace sidetrack
