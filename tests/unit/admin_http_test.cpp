// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/admin/http.h"
#include "tests/unit/admin_fake_views.h"

namespace sidetrack::admin {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class HttpEndpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server =
        HttpServer::listen(loop_.context, "127.0.0.1:0",
                           make_health(views_, [] { return std::string("a_metric 1\n"); }));
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    loop_.start();
  }
  void TearDown() override {
    loop_.stop();
    server_.reset();
  }
  [[nodiscard]] std::string get(const std::string& target) const {
    return test::exchange_tcp(
        server_->port(), "GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }

  test::FakeViews views_;
  test::LoopThread loop_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpEndpoint, serves_metrics_as_exposition_text) {
  const auto answer = get("/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\na_metric 1\n"));
}

TEST_F(HttpEndpoint, is_healthy_while_the_loop_runs) {
  EXPECT_THAT(get("/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpEndpoint, is_ready_when_the_views_say_so) {
  EXPECT_THAT(get("/readyz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpEndpoint, says_why_it_is_not_ready) {
  views_.is_ready = false;
  views_.status_view.agent_state = "degraded";
  views_.status_view.programs[0].attached = false;
  views_.status_view.programs[0].detail = "the link is gone";
  const auto answer = get("/readyz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(answer, HasSubstr("the agent is degraded"));
  EXPECT_THAT(answer,
              HasSubstr("st_connect4 is not attached to cgroup/connect4: the link is gone"));
}

TEST_F(HttpEndpoint, serves_no_api) {
  EXPECT_THAT(get("/v1/status"), StartsWith("HTTP/1.1 404"));
}

TEST_F(HttpEndpoint, takes_only_get) {
  EXPECT_THAT(test::exchange_tcp(
                  server_->port(),
                  "POST /metrics HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
              StartsWith("HTTP/1.1 405"));
}

TEST_F(HttpEndpoint, taken_port_is_named) {
  const auto address = "127.0.0.1:" + std::to_string(server_->port());
  const auto second =
      HttpServer::listen(loop_.context, address, make_health(views_, [] { return std::string(); }));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_THAT(second.error().message, HasSubstr(address));
}

TEST_F(HttpEndpoint, wrong_addresses_are_refused) {
  for (const char* address :
       {"", "127.0.0.1", "localhost:80", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:80x"}) {
    const auto server = HttpServer::listen(loop_.context, address,
                                           make_health(views_, [] { return std::string(); }));
    ASSERT_FALSE(server) << address;
    EXPECT_EQ(server.error().code, ErrorCode::kInvalid) << address;
  }
}

// An address for documentation: nobody has it.
TEST(HttpAddress, of_no_interface_is_a_wrong_address) {
  const auto bound = HttpServer::bind("192.0.2.1:0");
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code, ErrorCode::kInvalid);
  EXPECT_EQ(bound.error().message,
            "listen at 192.0.2.1:0: Cannot assign requested address (no interface here has it)");
}

}  // namespace
}  // namespace sidetrack::admin
