// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>

#include "probe/http.h"
#include "probe/kernel_view.h"
#include "probe/options.h"
#include "probe/serve.h"

namespace sidetrack::probe {
namespace {

TEST(ProbeOptions, an_expectation_is_a_reason_and_an_address) {
  const auto expectation = parse_expectation("redirected=web.shop:80");
  ASSERT_TRUE(expectation);
  EXPECT_EQ(expectation->reason, "redirected");
  EXPECT_EQ(expectation->host, "web.shop");
  EXPECT_EQ(expectation->port, 80);
}

TEST(ProbeOptions, an_ipv6_address_stands_in_brackets) {
  const auto expectation = parse_expectation("passthrough=[fd00::1]:8080");
  ASSERT_TRUE(expectation);
  EXPECT_EQ(expectation->host, "fd00::1");
  EXPECT_EQ(expectation->port, 8080);
}

TEST(ProbeOptions, refuses_what_is_no_expectation) {
  for (const char* text : {"", "web:80", "=web:80", "redirected=web", "redirected=:80",
                           "redirected=web:0", "redirected=web:65536", "redirected=web:80x"}) {
    EXPECT_FALSE(parse_expectation(text)) << text;
  }
}

TEST(ProbeOptions, check_needs_a_pod_and_an_expectation) {
  EXPECT_FALSE(parse_options({"check", "--namespace", "a", "--pod", "b"}));
  EXPECT_FALSE(parse_options({"check", "--expect", "redirected=web:80", "--pod", ""}));
  const auto options =
      parse_options({"check", "--namespace", "a", "--pod", "b", "--expect", "redirected=web:80"});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->command, Command::kCheck);
  EXPECT_EQ(options->expectations.size(), 1U);
}

TEST(ProbeOptions, serve_needs_a_port_and_unknown_commands_are_refused) {
  EXPECT_FALSE(parse_options({"serve"}));
  EXPECT_FALSE(parse_options({"listen", "--port", "80"}));
  EXPECT_FALSE(parse_options({"serve", "--por", "80"}));
  const auto options = parse_options({"serve", "--port", "80", "--port", "81"});
  ASSERT_TRUE(options);
  EXPECT_THAT(options->ports, testing::ElementsAre(80, 81));
}

TEST(ProbeAnswer, the_client_is_found_in_it) {
  EXPECT_EQ(client_of(answer("web-1", "10.0.0.7:1234", 80)), "10.0.0.7:1234");
  EXPECT_EQ(client_of(answer("web-1", "[fd00::7]:1234", 80)), "[fd00::7]:1234");
  EXPECT_EQ(client_of("404 not found"), "");
}

// Before a node knows a cluster IP, whoever the machine's default route leads to may answer for it.
TEST(ProbeAnswer, anything_but_200_is_an_error_that_says_who_answered) {
  namespace asio = boost::asio;
  using Tcp = asio::ip::tcp;
  asio::io_context context;
  Tcp::acceptor acceptor(context, Tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  const auto answer_one = [&](const std::string& text) {
    Tcp::socket socket = acceptor.accept();
    std::string request;
    asio::read_until(socket, asio::dynamic_buffer(request), "\r\n\r\n");
    asio::write(socket, asio::buffer(text));
  };
  std::thread server([&] {
    answer_one("HTTP/1.1 404 Not Found\r\nServer: else\r\nContent-Length: 0\r\n\r\n");
    answer_one("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nours");
  });
  const std::uint16_t port = acceptor.local_endpoint().port();
  const auto foreign = ask_server("127.0.0.1", port, std::chrono::seconds(5));
  const auto ours = ask_server("127.0.0.1", port, std::chrono::seconds(5));
  server.join();
  ASSERT_FALSE(foreign);
  EXPECT_THAT(foreign.error().message, testing::HasSubstr("answers 404 Not Found (else)"));
  ASSERT_TRUE(ours) << ours.error().message;
  EXPECT_EQ(ours->body, "ours");
}

TEST(ProbeKernelView, reads_what_the_api_answers) {
  const auto explanation = read_explanation(
      R"({"verdict": "redirected", "reason": "redirected", "agrees_with_kernel": true, "more": 1})");
  ASSERT_TRUE(explanation);
  EXPECT_EQ(explanation->verdict, "redirected");
  EXPECT_TRUE(explanation->agrees_with_kernel);
}

TEST(ProbeKernelView, counts_of_one_namespace_and_reason) {
  const char* body = R"({"counters": [
    {"namespace": "shop", "connections": {"redirected": 7, "passthrough": 2}},
    {"namespace": "till", "connections": {"redirected": 1}}]})";
  EXPECT_EQ(*read_count(body, "shop", "redirected"), 7U);
  EXPECT_EQ(*read_count(body, "till", "passthrough"), 0U);
  EXPECT_EQ(*read_count(body, "none", "redirected"), 0U);
}

TEST(ProbeKernelView, the_path_of_the_flow_with_these_two_ends) {
  const char* body = R"({"flows": [
    {"source": "10.0.0.7:1", "destination": "10.96.0.1:80", "path": "direct"},
    {"source": "10.0.0.7:2", "destination": "10.96.0.1:80", "path": "engine"}]})";
  EXPECT_EQ(*read_path(body, "10.0.0.7:2", "10.96.0.1:80"), "engine");
  EXPECT_EQ(*read_path(body, "10.0.0.7:3", "10.96.0.1:80"), "");
}

TEST(ProbeKernelView, an_answer_that_is_none_is_an_error) {
  EXPECT_FALSE(read_explanation("{}"));
  EXPECT_FALSE(read_count("[]", "shop", "redirected"));
  EXPECT_FALSE(read_path("not JSON", "a", "b"));
}

}  // namespace
}  // namespace sidetrack::probe
