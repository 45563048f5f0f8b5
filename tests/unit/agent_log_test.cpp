// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/details/log_msg.h>

#include <nlohmann/json.hpp>

#include "agent/main/log.h"

namespace sidetrack::agent {
namespace {

using ::testing::EndsWith;
using ::testing::StartsWith;

std::string line(const std::string& format, const std::string& message) {
  const spdlog::log_clock::time_point time(std::chrono::milliseconds(1'700'000'000'250));
  spdlog::memory_buf_t out;
  make_log_formatter(format)->format(
      spdlog::details::log_msg(time, {}, "agent", spdlog::level::warn, message), out);
  return std::string(out.data(), out.size());
}

TEST(Log, has_times_in_utc_as_the_engine_has) {
  EXPECT_EQ(line("text", "component=agent event=x"),
            "time=2023-11-14T22:13:20.250Z level=warning component=agent event=x\n");
}

TEST(Log, is_json_whatever_a_message_says) {
  const std::string text = line("json", "value=\"80x\"\n\xff\x1b");
  EXPECT_THAT(text, StartsWith("{\"time\":\"2023-11-14T22:13:20.250Z\","));
  EXPECT_THAT(text, EndsWith("}\n"));
  const auto parsed = nlohmann::json::parse(text);
  EXPECT_EQ(parsed["level"], "warning");
  EXPECT_EQ(parsed["message"], "value=\"80x\"\n\xef\xbf\xbd\x1b");
}

}  // namespace
}  // namespace sidetrack::agent
