// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "engine/metrics.h"
#include "engine/options.h"

namespace sidetrack::engine {
namespace {

TEST(EngineOptions, has_the_documented_defaults) {
  const auto options = parse_options({"run"}, {});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->state_dir, "/run/sidetrack");
  EXPECT_EQ(options->drain, std::chrono::seconds(30));
  EXPECT_EQ(options->http->address, "127.0.0.1");
  EXPECT_EQ(options->http->port, 15881);
  EXPECT_EQ(options->buffer_bytes, 262144U);
  EXPECT_GE(options->threads, 1U);
}

TEST(EngineOptions, prefers_the_command_line_to_the_environment) {
  const auto options = parse_options(
      {"run", "--threads", "3"},
      {"SIDETRACK_THREADS=5", "SIDETRACK_STATE_DIR=/x", "SIDETRACK_OTHER=1", "PATH=/bin"});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->threads, 3U);
  EXPECT_EQ(options->state_dir, "/x");
}

TEST(EngineOptions, can_switch_http_off) {
  EXPECT_FALSE(parse_options({"run", "--http", "off"}, {})->http);
}

TEST(EngineOptions, reads_an_ipv6_http_address) {
  EXPECT_EQ(parse_options({"run", "--http", "[::1]:9000"}, {})->http->address, "::1");
}

TEST(EngineOptions, refuses_what_it_does_not_understand) {
  EXPECT_FALSE(parse_options({}, {}));
  EXPECT_FALSE(parse_options({"walk"}, {}));
  EXPECT_FALSE(parse_options({"run", "--no-such"}, {}));
  EXPECT_FALSE(parse_options({"run", "--drain", "30"}, {}));
  EXPECT_FALSE(parse_options({"run", "--buffer", "1KiB"}, {}));
  EXPECT_FALSE(parse_options({"run", "--threads", "0"}, {}));
  EXPECT_FALSE(parse_options({"run", "--http", "localhost"}, {}));
  EXPECT_FALSE(parse_options({"run", "--log-level", "loud"}, {}));
}

TEST(EngineMetrics, names_what_was_refused_and_why) {
  MetricsInput input;
  input.totals.no_endpoints = 2;
  input.version = "1.2.3";
  const std::string text = metrics_text(input);
  EXPECT_NE(text.find("sidetrack_engine_refused_total{reason=\"no_endpoints\"} 2"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("sidetrack_engine_build_info{version=\"1.2.3\"} 1"), std::string::npos)
      << text;
}

}  // namespace
}  // namespace sidetrack::engine
