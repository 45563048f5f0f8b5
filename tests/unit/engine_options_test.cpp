// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <chrono>

#include <boost/asio/ip/tcp.hpp>

#include "engine/http_server.h"
#include "engine/metrics.h"
#include "engine/options.h"

namespace sidetrack::engine {
namespace {

using ::testing::HasSubstr;

// Those this process may run on.
unsigned cores() {
  cpu_set_t set;
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? static_cast<unsigned>(CPU_COUNT(&set)) : 0;
}

TEST(EngineOptions, has_the_documented_defaults) {
  const auto options = parse_options({"run"}, {});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->state_dir, "/run/sidetrack");
  EXPECT_EQ(options->drain, std::chrono::seconds(30));
  EXPECT_EQ(options->http->address, "127.0.0.1");
  EXPECT_EQ(options->http->port, 15881);
  EXPECT_EQ(options->buffer_bytes, 262144U);
  EXPECT_EQ(options->threads, cores());
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
  EXPECT_FALSE(parse_options({"run", "--thread", "3"}, {}));
  EXPECT_FALSE(parse_options({"run", "--drain", "30"}, {}));
  EXPECT_FALSE(parse_options({"run", "--buffer", "1KiB"}, {}));
  EXPECT_FALSE(parse_options({"run", "--threads", "0"}, {}));
  EXPECT_FALSE(parse_options({"run", "--http", "localhost"}, {}));
  EXPECT_FALSE(parse_options({"run", "--log-level", "loud"}, {}));
}

TEST(EngineOptions, names_what_it_refuses) {
  const auto message = [](const std::vector<std::string>& words) {
    const auto options = parse_options(words, {});
    return options ? "" : options.error().message;
  };
  EXPECT_THAT(message({}), HasSubstr("a command is missing: run"));
  EXPECT_THAT(message({"walk"}), HasSubstr("'walk' is no command: run"));
  EXPECT_THAT(message({"run", "now"}), HasSubstr("'now' belongs to no option"));
  EXPECT_THAT(message({"run", "--http", "::1:80"}),
              HasSubstr("--http '::1:80': ADDR:PORT is meant"));
  EXPECT_THAT(message({"run", "--drain", "30"}), HasSubstr("--drain: '30'"));
  EXPECT_THAT(message({"run", "--threads", "0"}), HasSubstr("--threads '0': 1 to 256"));
}

TEST(EngineOptions, name_the_variable_that_is_wrong) {
  const auto of_environment = parse_options({"run"}, {"SIDETRACK_DRAIN=30"});
  ASSERT_FALSE(of_environment);
  EXPECT_THAT(of_environment.error().message, HasSubstr("(--drain is set by SIDETRACK_DRAIN)"));
  const auto of_words = parse_options({"run", "--drain", "30"}, {"SIDETRACK_DRAIN=30s"});
  ASSERT_FALSE(of_words);
  EXPECT_THAT(of_words.error().message, ::testing::Not(HasSubstr("SIDETRACK_DRAIN")));
}

std::string why_not(const HttpAddress& address) {
  boost::asio::io_context context;
  HttpServer server(context, address, {});
  const auto started = server.start();
  return started ? "" : started.error().message;
}

TEST(EngineHttp, refuses_an_address_that_is_not_of_this_host) {
  EXPECT_THAT(why_not({"192.0.2.1", 15999}),
              HasSubstr("--http 192.0.2.1:15999: listen: Cannot assign requested address"));
}

TEST(EngineHttp, waits_for_an_address_that_another_engine_has_still) {
  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor other(context, {boost::asio::ip::make_address("127.0.0.1"), 0});
  const auto port = other.local_endpoint().port();
  HttpServer server(context, {"127.0.0.1", port},
                    {{"/healthz", [] { return HttpAnswer{.body = "ok\n"}; }}});
  ASSERT_TRUE(server.start());
  other.close();
  // The look after a second finds it free; then a client can connect.
  boost::asio::ip::tcp::socket client(context);
  bool connected = false;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!connected && std::chrono::steady_clock::now() < deadline) {
    context.run_for(std::chrono::milliseconds(50));
    boost::system::error_code error;
    client.close(error);
    client.connect({boost::asio::ip::make_address("127.0.0.1"), port}, error);
    connected = !error;
  }
  EXPECT_TRUE(connected);
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
