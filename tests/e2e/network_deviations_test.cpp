// SPDX-License-Identifier: Apache-2.0
// Deviations 2 and 10 of docs/deviations.md: what the network beyond the pod says of a connection,
// and what it meets of the application's socket.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tests/e2e/deviations.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

// Outside of the pods' network: a router is in between.
constexpr const char* kFarAway = "10.96.0.77";

class NetworkDeviations : public DeviationsPair {
 protected:
  // A connect, and what it says without Sidetrack.
  struct Attempt {
    std::string address;
    std::string port;
    std::string error;
  };
  void expect_reset_instead(const std::vector<Attempt>& attempts) {
    std::vector<std::string> places;
    std::string direct;
    std::string redirected;
    for (const Attempt& attempt : attempts) {
      places.insert(places.end(), {attempt.address, attempt.port});
      direct += fmt::format("{} {}\nconnect {}\n", attempt.address, attempt.port, attempt.error);
      redirected += fmt::format("{} {}\nconnect ok\nread ECONNRESET\nagain b''\n", attempt.address,
                                attempt.port);
    }
    expect(probe("read_each", places), direct, redirected);
  }
  static std::string endpoint(const Attempt& attempt) {
    return attempt.address.find(':') == std::string::npos
               ? fmt::format("{}:{}", attempt.address, attempt.port)
               : fmt::format("[{}]:{}", attempt.address, attempt.port);
  }
  // What the flow record of web's connection to `destination` says of its end.
  static std::string close_of(const std::string& destination) {
    std::string close;
    EXPECT_TRUE(eventually(kPatience, [&] {
      const auto answer = sidetrack_->get("/v1/flows");
      for (const json& flow : answer ? (*answer)["flows"] : json::array()) {
        if (flow["destination"] == destination) {
          close = flow["close"];
        }
      }
      return !close.empty();
    })) << destination;
    return close;
  }
  static void nft(const Pod& pod, const std::string& commands) {
    ST_ASSERT_VALUE(const auto done,
                    run_command({.arguments = {"nft", commands}, .netns_path = pod.netns.path()}));
    EXPECT_EQ(done.exit_status, 0) << done.output;
  }
  static Client reaches(const char* option, const char* value) {
    return step_of("packets.py", "reaches", {kFarAway, option, value});
  }
  // The same few lines of `step` of packets.py, with "True" of a direct connection and "False" of a
  // redirected one.
  void expect_only_direct_has(const std::string& step, const std::vector<std::string>& arguments,
                              const std::string& first, const std::vector<std::string>& names) {
    const auto all = [&](const char* is_so) {
      std::string lines = first;
      for (const std::string& name : names) {
        lines += fmt::format("{} {}\n", name, is_so);
      }
      return lines;
    };
    expect(step_of("packets.py", step, arguments), all("True"), all("False"));
  }
};

TEST_F(NetworkDeviations, d02_without_a_route_it_shows_as_reset_after_connect) {
  const auto with_routes = [](const char* verb) {
    in_both_pods(
        fmt::format("route {0} unreachable 10.251.0.0/16\nroute {0} throw 10.252.0.0/16\n"
                    "route {0} prohibit 10.253.0.0/16\nroute {0} unreachable fd00:251::/32\n"
                    "route {0} throw fd00:252::/32",
                    verb));
    ST_ASSERT_OK(lab_->node().ip(fmt::format(
        "route {0} unreachable 10.249.0.0/16\nroute {0} unreachable fd00:249::/32", verb)));
  };
  with_routes("add");
  expect_reset_instead({{"10.251.0.1", "80", "EHOSTUNREACH"},
                        {"10.252.0.1", "80", "ENETUNREACH"},
                        {"10.253.0.1", "80", "EACCES"},
                        {"fd00:251::1", "80", "EHOSTUNREACH"},
                        {"fd00:252::1", "80", "ENETUNREACH"},
                        {"10.249.0.1", "80", "EHOSTUNREACH"},
                        {"fd00:249::1", "80", "ENETUNREACH"}});
  for (const char* const destination : {"10.251.0.1:80", "10.252.0.1:80", "[fd00:252::1]:80",
                                        "10.249.0.1:80", "[fd00:249::1]:80"}) {
    EXPECT_EQ(close_of(destination), "refused") << destination;
  }
  with_routes("del");
}

TEST_F(NetworkDeviations, d02_what_a_reject_rule_answers_shows_as_reset_after_connect) {
  struct Answer {
    const char* program;
    const char* with;
    const char* error;
  };
  std::vector<Attempt> attempts;
  for (const Answer& answer : {Answer{"iptables", "icmp-net-unreachable", "ENETUNREACH"},
                               {"iptables", "icmp-host-unreachable", "EHOSTUNREACH"},
                               {"iptables", "icmp-admin-prohibited", "EHOSTUNREACH"},
                               {"iptables", "icmp-port-unreachable", "ECONNREFUSED"},
                               {"iptables", "tcp-reset", "ECONNREFUSED"},
                               {"ip6tables", "icmp6-no-route", "ENETUNREACH"},
                               {"ip6tables", "icmp6-adm-prohibited", "EACCES"},
                               {"ip6tables", "icmp6-port-unreachable", "ECONNREFUSED"},
                               {"ip6tables", "tcp-reset", "ECONNREFUSED"}}) {
    const std::string port = std::to_string(7301 + attempts.size());
    iptables(
        *server_,
        fmt::format("-A INPUT -p tcp --dport {} -j REJECT --reject-with {}", port, answer.with),
        answer.program);
    attempts.push_back(
        {answer.program == std::string("iptables") ? host_ : server_->v6, port, answer.error});
  }
  expect_reset_instead(attempts);
  for (const Attempt& attempt : {attempts.front(), attempts.back()}) {
    EXPECT_EQ(close_of(endpoint(attempt)), "refused") << endpoint(attempt);
  }
  iptables(*server_, "-F INPUT");
  iptables(*server_, "-F INPUT", "ip6tables");
}

TEST_F(NetworkDeviations, d10_headers_of_packets_end_at_the_engine) {
  expect(probe("tos", {host_}), "mine 72 server sees 72\n", "mine 72 server sees 0\n");
  // The client sends data with its SYN and the server takes it, without cookies.
  for (const Pod* pod : {web_, plain_, server_}) {
    ST_ASSERT_OK(pod->netns.write_sysctl("ipv4/tcp_fastopen", "519"));
  }
  expect_only_direct_has("headers", {host_, server_->v6}, "",
                         {"traffic class", "flow label", "IP options", "extension headers",
                          "maximum segment", "data in the SYN"});
  for (const Pod* pod : {web_, plain_, server_}) {
    ST_ASSERT_OK(pod->netns.write_sysctl("ipv4/tcp_fastopen", "1"));
  }
}

TEST_F(NetworkDeviations, d10_marks_for_rules_and_routes_end_at_the_engine) {
  ST_ASSERT_OK(lab_->add_service_address(kFarAway, *server_));
  // A TTL that ends at the node: the redirected connection does not notice.
  expect(probe("ttl", {kFarAway}), "connect EHOSTUNREACH\n", "connect ok\nanswer True\n");
  in_both_pods("rule add fwmark 77 prohibit");
  expect(reaches("SO_MARK", "77"), "Permission denied\n", "answer True\n");
  in_both_pods("rule del fwmark 77 prohibit");
  expect(reaches("SO_DONTROUTE", "1"), "Network is unreachable\n", "answer True\n");
  for (const Pod* pod : {web_, plain_}) {
    nft(*pod,
        "add table ip marks; add chain ip marks out { type filter hook output priority 0; }; "
        "add rule ip marks out oifname eth0 meta priority 0:5 reject with tcp reset");
  }
  expect(reaches("SO_PRIORITY", "5"), "Connection refused\n", "answer True\n");
  for (const Pod* pod : {web_, plain_}) {
    nft(*pod, "delete table ip marks");
  }
}

TEST_F(NetworkDeviations, d10_options_of_the_socket_end_at_the_engine) {
  expect_only_direct_has("sockets", {host_}, "sockets 1\n",
                         {"congestion control", "pacing rate", "receive buffer", "send buffer"});
}

TEST_F(NetworkDeviations, d10_a_port_range_of_the_socket_ends_at_the_engine) {
  const Outcomes outcomes = run_both(step_of("packets.py", "port_range", {host_}));
  const bool kernel_has_it = outcomes.direct.output != "unknown\n";
  EXPECT_EQ(outcomes.direct.output, kernel_has_it ? "mine True\nport range True\n" : "unknown\n");
  EXPECT_EQ(outcomes.redirected.output,
            kernel_has_it ? "mine True\nport range False\n" : "unknown\n");
}

TEST_F(NetworkDeviations, d10_a_number_of_attempts_ends_at_the_engine) {
  ST_ASSERT_OK(lab_->node().ip("route add blackhole 10.250.0.0/16"));
  expect(step_of("packets.py", "few_attempts", {"10.250.0.1"}), "Connection timed out\n",
         "timed out\n");
  ST_ASSERT_OK(lab_->node().ip("route del blackhole 10.250.0.0/16"));
}

}  // namespace
}  // namespace sidetrack::lab
