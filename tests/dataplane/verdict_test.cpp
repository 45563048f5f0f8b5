// SPDX-License-Identifier: Apache-2.0
// Which way a connection goes and what tells of it: the counter, `explain` with the rule, the
// socket's row in the kernel, the flow record.
#include <fmt/format.h>

#include <cerrno>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

struct Rule {
  const char* object;
  const char* key;
  std::string value;
};

struct Destination {
  std::string address;
  std::uint16_t port;
};

class VerdictTest : public Mesh {
 protected:
  void explains(const Destination& to, const std::string& verdict, const std::string& reason,
                const std::optional<Rule>& rule) const {
    const json view = explain(to.address, to.port);
    EXPECT_EQ(view.value("verdict", ""), verdict) << view;
    EXPECT_EQ(view.value("reason", ""), reason) << view;
    EXPECT_EQ(view.value("agrees_with_kernel", false), true) << view;
    if (rule) {
      EXPECT_EQ(view["rule"],
                json({{"object", rule->object}, {"key", rule->key}, {"value", rule->value}}))
          << view;
    }
  }

  // A connection that works and of which nothing but one count of `reason` remains.
  void left_alone(const Destination& to, const std::string& reason, const std::optional<Rule>& rule,
                  const ConnectOptions& options = {}) {
    explains(to, "direct", reason, rule);
    const Counts before = counts();
    ST_ASSERT_VALUE(auto socket, shell_->connect(to.address, to.port, options));
    ASSERT_EQ(socket.errno_name, "") << sidetrack_->logs();
    ST_ASSERT_VALUE(const auto role, remembered(*shell_, socket.id));
    EXPECT_EQ(role, "") << "an excluded socket has a row";
    const std::string source = source_of(*shell_, socket.id);
    EXPECT_TRUE(flows_from(source).empty()) << "live";
    finish(socket.id);
    EXPECT_EQ(counts(), plus_one(before, reason));
    EXPECT_TRUE(flows_from(source).empty()) << "closed";
  }

  // A connection with a flow record: `path` engine or direct.
  void recorded(const Destination& to, const std::string& reason, const std::string& path,
                const std::string& endpoint, const ConnectOptions& options = {}) {
    const Counts before = counts();
    ST_ASSERT_VALUE(auto socket, shell_->connect(to.address, to.port, options));
    ASSERT_EQ(socket.errno_name, "") << sidetrack_->logs();
    ST_ASSERT_VALUE(const auto role, remembered(*shell_, socket.id));
    EXPECT_EQ(role, path == "engine" ? "redirected" : "observed");
    const std::string source = source_of(*shell_, socket.id);
    const auto live = flows_from(source);
    ASSERT_EQ(live.size(), 1U);
    EXPECT_EQ(live[0]["close"], "");
    ST_ASSERT_VALUE(const std::uint64_t number, cookie(*shell_, socket.id));
    ST_ASSERT_VALUE(const bool is_shown, is_listed(number));
    EXPECT_TRUE(is_shown);
    finish(socket.id);
    EXPECT_TRUE(eventually(kPatience, [&] {
      const auto stays = is_listed(number);
      return stays && !*stays;
    }));
    Counts expected = plus_one(before, reason);
    if (path == "engine") {
      expected = plus_one(expected, "engine_socket");  // its way to the endpoint
    }
    EXPECT_EQ(counts(), expected);
    const json flow = closed_flow(source);
    EXPECT_EQ(flow["namespace"], "shop");
    EXPECT_EQ(flow["pod"], "web");
    EXPECT_EQ(flow["destination"], endpoint_text(to.address, to.port));
    EXPECT_EQ(flow["endpoint"], endpoint);
    EXPECT_EQ(flow["verdict"], path == "engine" ? "redirected" : "direct");
    EXPECT_EQ(flow["reason"], reason);
    EXPECT_EQ(flow["path"], path);
    EXPECT_EQ(flow["bytes_out"], 100'000);
    EXPECT_EQ(flow["bytes_in"], 100'000);
    EXPECT_EQ(flow["close"], "fin");
    EXPECT_EQ(flows_from(source).size(), 1U);
  }

  // Every byte there and back, half-close and FIN.
  void finish(int id) const {
    ST_ASSERT_VALUE(auto done, shell_->exchange(id, 100'000));
    EXPECT_EQ(done.error_number, 0) << sidetrack_->logs();
    EXPECT_EQ(done.length, 100'000U);
    EXPECT_EQ(done.digest, done.expected_digest);
    ST_ASSERT_OK(shell_->close(id));
  }

  const Rule mode_rule_{"Namespace/shop", kMode, "redirect"};
};

TEST_F(VerdictTest, service_address_goes_to_the_endpoint) {
  explains({kServiceV4, kServicePort}, "redirected", "redirected", mode_rule_);
  recorded({kServiceV4, kServicePort}, "redirected", "engine", endpoint_text(api_->v4, kEcho));
}

TEST_F(VerdictTest, ipv6_service_address_goes_to_the_endpoint) {
  explains({kServiceV6, kServicePort}, "redirected", "redirected", mode_rule_);
  recorded({kServiceV6, kServicePort}, "redirected", "engine", endpoint_text(api_->v6, kEcho));
}

TEST_F(VerdictTest, pod_address_is_redirected) {
  explains({api_->v4, kEcho}, "redirected", "redirected", mode_rule_);
  recorded({api_->v4, kEcho}, "redirected", "engine", endpoint_text(api_->v4, kEcho));
}

TEST_F(VerdictTest, ipv6_pod_address_is_redirected) {
  recorded({api_->v6, kEcho}, "redirected", "engine", endpoint_text(api_->v6, kEcho));
}

TEST_F(VerdictTest, mapped_address_on_an_ipv6_socket_is_redirected) {
  recorded({api_->v4, kEcho}, "redirected", "engine", endpoint_text(api_->v4, kEcho),
           {.family = Family::kV6});
}

TEST_F(VerdictTest, mapped_service_address_goes_to_the_endpoint) {
  recorded({kServiceV4, kServicePort}, "redirected", "engine", endpoint_text(api_->v4, kEcho),
           {.family = Family::kV6});
}

TEST_F(VerdictTest, servers_see_the_address_of_the_pod) {
  ServiceSpec whoami = service({{.addresses = {api_->v4}}});
  whoami.name = "whoami";
  whoami.cluster_addresses = {"10.96.0.11"};
  whoami.target_port = kWhoami;
  ST_ASSERT_OK(objects_->put(whoami));
  ASSERT_TRUE(
      eventually(kPatience, [&] { return explain("10.96.0.11", 80)["endpoints"].size() == 1; }));
  struct Row {
    std::string address;
    std::uint16_t port;
    std::string expected;
  };
  for (const Row& row : {Row{api_->v4, kWhoami, web_->v4}, Row{api_->v6, kWhoami, web_->v6},
                         Row{"10.96.0.11", 80, web_->v4}}) {
    SCOPED_TRACE(row.address);
    ST_ASSERT_VALUE(auto socket, shell_->connect(row.address, row.port));
    ST_ASSERT_VALUE(const auto role, remembered(*shell_, socket.id));
    EXPECT_EQ(role, "redirected");
    ST_ASSERT_VALUE(auto seen, shell_->receive(socket.id, 100));
    EXPECT_EQ(seen.text.substr(0, seen.text.find(' ')), row.expected);
  }
}

TEST_F(VerdictTest, excluded_port_is_left_alone) {
  annotate(kExcludePorts, "8500,7000");
  left_alone({api_->v4, kEcho}, "excluded_port", Rule{"Namespace/shop", kExcludePorts, "7000"});
  left_alone({api_->v6, kEcho}, "excluded_port", Rule{"Namespace/shop", kExcludePorts, "7000"});
  left_alone({api_->v4, kEcho}, "excluded_port", std::nullopt, {.family = Family::kV6});
  recorded({api_->v4, kEchoToo}, "redirected", "engine", endpoint_text(api_->v4, kEchoToo));
}

TEST_F(VerdictTest, excluded_port_range_is_left_alone) {
  annotate(kExcludePorts, "80,7001-7100");
  left_alone({api_->v4, kEchoToo}, "excluded_port",
             Rule{"Namespace/shop", kExcludePorts, "7001-7100"});
  recorded({api_->v4, kEcho}, "redirected", "engine", endpoint_text(api_->v4, kEcho));
}

TEST_F(VerdictTest, excluded_cidr_is_left_alone) {
  annotate(kExcludeCidrs, fmt::format("10.9.0.0/16,{}/31", api_->v4));
  left_alone({api_->v4, kEcho}, "excluded_cidr",
             Rule{"Namespace/shop", kExcludeCidrs, api_->v4 + "/31"});
  left_alone({api_->v4, kEcho}, "excluded_cidr", std::nullopt, {.family = Family::kV6});
  recorded({api_->v6, kEcho}, "redirected", "engine", endpoint_text(api_->v6, kEcho));
}

// The program of everybody, once more than the shell of these tests.
TEST_F(VerdictTest, curl_to_an_excluded_port_or_cidr_is_left_alone) {
  ST_ASSERT_VALUE(const TempDir folder, TempDir::create("curl"));
  ST_ASSERT_OK(write_atomically(folder.file("answer"), "left alone"));
  constexpr std::uint16_t kHttp = 8080;
  ST_ASSERT_VALUE(const auto server,
                  Process::start({.arguments = {"python3", "-m", "http.server", "--bind",
                                                "::", "--directory", folder.path(), "8080"},
                                  .netns_path = spare_->netns.path()}));
  ST_ASSERT_OK(server->wait_for_output("Serving"));
  const auto curl_says = [&](const std::string& address, const char* reason) {
    SCOPED_TRACE(address + " " + reason);
    const Counts before = counts();
    ST_ASSERT_VALUE(
        const auto curl,
        run_command({.arguments = {"curl", "-sS", "--noproxy", "*", "--max-time", "10", "-w",
                                   " %{local_ip} %{remote_ip}",
                                   fmt::format("http://{}/answer", endpoint_text(address, kHttp))},
                     .netns_path = web_->netns.path(),
                     .cgroup_path = cgroup_->path()}));
    const std::string own = address == spare_->v4 ? web_->v4 : web_->v6;
    EXPECT_EQ(curl.standard_output, fmt::format("left alone {} {}", own, address)) << curl.output;
    Counts expected = plus_one(before, reason);
    if (std::string(reason) == "redirected") {
      expected = plus_one(expected, "engine_socket");
    }
    EXPECT_EQ(counts(), expected);
  };
  curl_says(spare_->v4, "redirected");
  curl_says(spare_->v6, "redirected");
  annotate(kExcludePorts, std::to_string(kHttp));
  curl_says(spare_->v4, "excluded_port");
  curl_says(spare_->v6, "excluded_port");
  annotate(kExcludePorts, "1");
  annotate(kExcludeCidrs, fmt::format("{}/32,{}/128", spare_->v4, spare_->v6));
  curl_says(spare_->v4, "excluded_cidr");
  curl_says(spare_->v6, "excluded_cidr");
  // Of the two that were redirected: the ring keeps the order, and the next one comes after all.
  recorded({api_->v4, kEcho}, "redirected", "engine", endpoint_text(api_->v4, kEcho));
  ST_ASSERT_VALUE(const json all, sidetrack_->get("/v1/flows"));
  for (const json& flow : all["flows"]) {
    EXPECT_EQ(flow["reason"], "redirected") << flow;
  }
  EXPECT_EQ(all["flows"].size(), 3U) << all;
}

TEST_F(VerdictTest, excluded_ipv6_cidr_is_left_alone) {
  annotate(kExcludeCidrs, "fd00:10:244::/64");
  left_alone({api_->v6, kEcho}, "excluded_cidr",
             Rule{"Namespace/shop", kExcludeCidrs, "fd00:10:244::/64"});
  recorded({api_->v4, kEcho}, "redirected", "engine", endpoint_text(api_->v4, kEcho));
}

TEST_F(VerdictTest, cidr_with_ports_excludes_only_these) {
  annotate(kExcludeCidrs, fmt::format("10.244.0.0/16:7000,[{}]:7100-7200", api_->v6));
  left_alone({api_->v4, kEcho}, "excluded_cidr",
             Rule{"Namespace/shop", kExcludeCidrs, "10.244.0.0/16:7000"});
  recorded({api_->v4, kEchoToo}, "redirected", "engine", endpoint_text(api_->v4, kEchoToo));
  left_alone({api_->v6, kEchoToo}, "excluded_cidr", std::nullopt);
  recorded({api_->v6, kEcho}, "redirected", "engine", endpoint_text(api_->v6, kEcho));
}

TEST_F(VerdictTest, narrower_prefix_with_ports_keeps_what_the_covering_one_excludes) {
  annotate(kExcludeCidrs, "10.0.0.0/8:7000,10.244.0.0/16:443");
  left_alone({api_->v4, kEcho}, "excluded_cidr",
             Rule{"Namespace/shop", kExcludeCidrs, "10.0.0.0/8:7000"});
  left_alone({api_->v4, kHttps}, "excluded_cidr",
             Rule{"Namespace/shop", kExcludeCidrs, "10.244.0.0/16:443"});
  recorded({api_->v4, kEchoToo}, "redirected", "engine", endpoint_text(api_->v4, kEchoToo));
}

TEST_F(VerdictTest, covering_prefix_without_ports_excludes_all_of_a_narrower_one) {
  annotate(kExcludeCidrs, "10.0.0.0/8,10.244.0.0/16:443");
  left_alone({api_->v4, kEchoToo}, "excluded_cidr",
             Rule{"Namespace/shop", kExcludeCidrs, "10.0.0.0/8"});
}

TEST_F(VerdictTest, include_ports_redirect_only_these) {
  annotate(kIncludePorts, "7000");
  recorded({api_->v4, kEcho}, "redirected", "engine", endpoint_text(api_->v4, kEcho));
  explains({api_->v4, kEcho}, "redirected", "redirected",
           Rule{"Namespace/shop", kIncludePorts, "7000"});
  left_alone({api_->v4, kEchoToo}, "not_included", Rule{"Namespace/shop", kIncludePorts, "7000"});
}

TEST_F(VerdictTest, include_cidrs_redirect_only_these) {
  annotate(kIncludeCidrs, api_->v4 + "/32");
  recorded({api_->v4, kEcho}, "redirected", "engine", endpoint_text(api_->v4, kEcho));
  left_alone({api_->v6, kEcho}, "not_included",
             Rule{"Namespace/shop", kIncludeCidrs, api_->v4 + "/32"});
}

TEST_F(VerdictTest, either_include_list_is_enough_and_excludes_win) {
  annotate(kIncludePorts, "7000");
  annotate(kIncludeCidrs, api_->v4 + "/32");
  annotate(kExcludePorts, "443");
  recorded({api_->v4, kEchoToo}, "redirected", "engine", endpoint_text(api_->v4, kEchoToo));
  recorded({api_->v6, kEcho}, "redirected", "engine", endpoint_text(api_->v6, kEcho));
  left_alone({api_->v6, kEchoToo}, "not_included", std::nullopt);
  left_alone({api_->v4, kHttps}, "excluded_port", Rule{"Namespace/shop", kExcludePorts, "443"});
}

TEST_F(VerdictTest, passthrough_is_observed) {
  label(kMode, "passthrough");
  explains({api_->v4, kEcho}, "direct", "passthrough",
           Rule{"Namespace/shop", kMode, "passthrough"});
  recorded({api_->v4, kEcho}, "passthrough", "direct", endpoint_text(api_->v4, kEcho));
  recorded({api_->v6, kEcho}, "passthrough", "direct", endpoint_text(api_->v6, kEcho));
  recorded({api_->v4, kEcho}, "passthrough", "direct", endpoint_text(api_->v4, kEcho),
           {.family = Family::kV6});
}

TEST_F(VerdictTest, passthrough_works_without_its_row) {
  label(kMode, "passthrough");
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kEcho));
  ST_ASSERT_VALUE(const std::uint64_t cookie, cookie(*shell_, socket.id));
  const std::string source = source_of(*shell_, socket.id);
  EXPECT_EQ(flows_from(source).size(), 1U);
  ST_ASSERT_OK(kernel().delete_observed(cookie));
  EXPECT_TRUE(flows_from(source).empty());
  finish(socket.id);
  EXPECT_TRUE(flows_from(source).empty());
  recorded({api_->v4, kEcho}, "passthrough", "direct", endpoint_text(api_->v4, kEcho));
}

TEST_F(VerdictTest, a_failed_connect_leaves_nothing_for_the_next_one) {
  label(kMode, "passthrough");
  annotate(kExcludePorts, "7000");
  // Without a route connect() fails after the hook and before a SYN.
  ST_ASSERT_VALUE(const auto routed,
                  run_command({.arguments = {"ip", "route", "add", "unreachable", "203.0.113.0/24"},
                               .netns_path = web_->netns.path()}));
  EXPECT_EQ(routed.exit_status, 0) << routed.output;
  ST_ASSERT_VALUE(auto socket, shell_->connect("203.0.113.1", kEchoToo));
  EXPECT_EQ(socket.errno_name, "EHOSTUNREACH");
  ST_ASSERT_VALUE(const auto before, remembered(*shell_, socket.id));
  EXPECT_EQ(before, "observed");
  ST_ASSERT_VALUE(auto again, shell_->connect_again(socket.id, api_->v4, kEcho));
  EXPECT_EQ(again.errno_name, "");
  ST_ASSERT_VALUE(const auto role, remembered(*shell_, socket.id));
  EXPECT_EQ(role, "");
}

TEST_F(VerdictTest, excluded_connection_of_a_passthrough_pod_is_not_observed) {
  label(kMode, "passthrough");
  annotate(kExcludePorts, "7000");
  const Counts before = counts();
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kEcho));
  ST_ASSERT_VALUE(const auto role, remembered(*shell_, socket.id));
  EXPECT_EQ(role, "");
  const std::string source = source_of(*shell_, socket.id);
  finish(socket.id);
  EXPECT_TRUE(flows_from(source).empty());
  EXPECT_EQ(counts(), plus_one(before, "passthrough"));
}

TEST_F(VerdictTest, unlabelled_pod_is_left_alone) {
  const json view = explain(api_->v4, kEcho, "depot/plain");
  EXPECT_EQ(view["verdict"], "direct");
  EXPECT_EQ(view["reason"], "not_enrolled");
  EXPECT_EQ(view["rule"]["value"], "disabled") << view;
  const auto total = [this] {
    return counts("depot")["not_enrolled"] + counts("")["not_enrolled"];
  };
  const std::uint64_t before = total();
  ST_ASSERT_VALUE(auto socket, control_->connect(api_->v4, kEcho));
  ST_ASSERT_VALUE(const auto role, remembered(*control_, socket.id));
  EXPECT_EQ(role, "");
  EXPECT_TRUE(flows_from(source_of(*control_, socket.id)).empty());
  ST_ASSERT_VALUE(auto done, control_->exchange(socket.id, 1000));
  EXPECT_EQ(done.digest, done.expected_digest);
  EXPECT_EQ(total(), before + 1);
}

TEST_F(VerdictTest, unknown_netns_is_reported_once) {
  ST_ASSERT_VALUE(auto stranger, PodShell::start(place(*stranger_)));
  ST_ASSERT_VALUE(const std::uint64_t cookie, stranger_->netns.cookie());
  const std::string report = fmt::format("event=unknown_netns netns_cookie={} ", cookie);
  const std::uint64_t before = counts("")["unknown_netns"];
  for (int i = 0; i < 3; ++i) {
    ST_ASSERT_VALUE(auto socket, stranger->connect(api_->v4, kEcho));
    EXPECT_EQ(socket.errno_name, "");
    ST_ASSERT_VALUE(const auto role, remembered(*stranger, socket.id));
    EXPECT_EQ(role, "");
  }
  EXPECT_EQ(counts("")["unknown_netns"], before + 3);
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output(report));
  // A second netns that is reported later: had the first been reported again, it would be seen by
  // then.
  ST_ASSERT_VALUE(auto* other, lab_->add_pod("other"));
  ST_ASSERT_VALUE(auto later, PodShell::start(place(*other)));
  ST_ASSERT_VALUE(const std::uint64_t other_cookie, other->netns.cookie());
  ST_ASSERT_OK(later->connect(api_->v4, kEcho));
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output(
      fmt::format("event=unknown_netns netns_cookie={} ", other_cookie)));
  const std::string log = sidetrack_->agent().output();
  EXPECT_EQ(log.find(report), log.rfind(report)) << log;
}

TEST_F(VerdictTest, udp_is_untouched_and_counted) {
  const Counts before = counts();
  ST_ASSERT_VALUE(const bool v4, shell_->udp_exchange(api_->v4, kUdp));
  ST_ASSERT_VALUE(const bool v6, shell_->udp_exchange(api_->v6, kUdp));
  EXPECT_TRUE(v4);
  EXPECT_TRUE(v6);
  EXPECT_EQ(counts(), plus_one(plus_one(before, "not_tcp"), "not_tcp"));
}

TEST_F(VerdictTest, loopback_and_own_address_are_left_alone) {
  ST_ASSERT_VALUE(auto server, EchoServer::start(place(*web_), {"echo:7000"}));
  for (const std::string& address : {std::string("127.0.0.1"), std::string("127.1.2.3"),
                                     std::string("::1"), web_->v4, web_->v6}) {
    SCOPED_TRACE(address);
    left_alone({address, kEcho}, "local_destination", std::nullopt);
  }
}

TEST_F(VerdictTest, bypass_sends_all_direct) {
  ST_ASSERT_VALUE(auto on, sidetrack_->ctl({"bypass", "--pin-dir", sidetrack_->pin_dir(), "on"}));
  ASSERT_EQ(on.exit_status, 0) << on.output;
  left_alone({api_->v4, kEcho}, "bypass", std::nullopt);
  left_alone({api_->v6, kEcho}, "bypass", std::nullopt);
  ST_ASSERT_VALUE(auto off, sidetrack_->ctl({"bypass", "--pin-dir", sidetrack_->pin_dir(), "off"}));
  ASSERT_EQ(off.exit_status, 0) << off.output;
  recorded({api_->v4, kEcho}, "redirected", "engine", endpoint_text(api_->v4, kEcho));
}

TEST_F(VerdictTest, no_namespace_of_the_lab_has_a_firewall_rule) {
  recorded({kServiceV4, kServicePort}, "redirected", "engine", endpoint_text(api_->v4, kEcho));
  recorded({kServiceV6, kServicePort}, "redirected", "engine", endpoint_text(api_->v6, kEcho));
  ST_ASSERT_VALUE(const auto stranger, PodShell::start(place(*stranger_)));
  ST_ASSERT_VALUE(const auto direct, stranger->connect(api_->v4, kEcho));
  EXPECT_EQ(direct.errno_name, "");
  ST_ASSERT_VALUE(const std::string rules, lab_->firewall_rules());
  EXPECT_EQ(rules, "");
}

class NodeListsTest : public VerdictTest {
 protected:
  void start_sidetrack() override {
    options_.agent_arguments = {"--exclude-outbound-ports", "443", "--exclude-outbound-cidrs",
                                "10.244.0.0/16:7100"};
    VerdictTest::start_sidetrack();
  }
};

TEST_F(NodeListsTest, apply_to_every_namespace) {
  left_alone({api_->v4, kHttps}, "excluded_port", Rule{"node", "exclude-outbound-ports", "443"});
  left_alone({api_->v4, kEchoToo}, "excluded_cidr",
             Rule{"node", "exclude-outbound-cidrs", "10.244.0.0/16:7100"});
  recorded({api_->v6, kEchoToo}, "redirected", "engine", endpoint_text(api_->v6, kEchoToo));
  annotate(kExcludePorts, "7000");
  left_alone({api_->v4, kEcho}, "excluded_port", Rule{"Namespace/shop", kExcludePorts, "7000"});
  left_alone({api_->v4, kHttps}, "excluded_port", std::nullopt);
}

}  // namespace
}  // namespace sidetrack::lab
