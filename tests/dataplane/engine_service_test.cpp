// SPDX-License-Identifier: Apache-2.0
// The embedded engine: which endpoint of a Service gets a connection, that it serves nobody but
// redirected connections, and what applications see when there is no engine.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cerrno>
#include <set>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

struct EndpointSpec {
  std::string address;
  bool ready = true;
  bool serving = true;
  bool terminating = false;
  std::string node{"node-1"};
};

class EngineServiceTest : public Mesh {
 protected:
  void SetUp() override {
    Mesh::SetUp();
    if (!HasFatalFailure() && !IsSkipped()) {
      ST_ASSERT_VALUE(spare_echo_, EchoServer::start(place(*spare_), {"echo:7000"}));
    }
  }

  // The Service of depot/api with these endpoints; `spec` adds to its spec. Returns when the agent
  // has it.
  void publish(const std::vector<EndpointSpec>& endpoints, const json& spec = json::object()) {
    json service = {{"apiVersion", "v1"},
                    {"kind", "Service"},
                    {"metadata", {{"name", "api"}, {"namespace", "depot"}}},
                    {"spec",
                     {{"type", "ClusterIP"},
                      {"clusterIP", kServiceV4},
                      {"clusterIPs", {kServiceV4}},
                      {"ports",
                       {{{"name", "main"},
                         {"protocol", "TCP"},
                         {"port", kServicePort},
                         {"targetPort", kEcho}}}}}}};
    service["spec"].update(spec);
    json list = json::array();
    for (const EndpointSpec& endpoint : endpoints) {
      list.push_back({{"addresses", {endpoint.address}},
                      {"conditions",
                       {{"ready", endpoint.ready},
                        {"serving", endpoint.serving},
                        {"terminating", endpoint.terminating}}},
                      {"nodeName", endpoint.node}});
    }
    const json slice = {{"apiVersion", "discovery.k8s.io/v1"},
                        {"kind", "EndpointSlice"},
                        {"metadata",
                         {{"name", "api-v4"},
                          {"namespace", "depot"},
                          {"labels", {{"kubernetes.io/service-name", "api"}}}}},
                        {"addressType", "IPv4"},
                        {"ports", {{{"name", "main"}, {"protocol", "TCP"}, {"port", kEcho}}}},
                        {"endpoints", list}};
    ST_ASSERT_OK(objects_->put_text("service-depot.api.yaml",
                                    "---\n" + service.dump() + "\n---\n" + slice.dump() + "\n"));
  }
  // Waits until the engine sends new connections to exactly these pods' echo servers.
  void wait_for_endpoints(const std::set<std::string>& pods) const {
    std::set<std::string> expected;
    for (const std::string& pod : pods) {
      expected.insert(endpoint_text(pod, kEcho));
    }
    ASSERT_TRUE(eventually(kPatience, [&] {
      return explain(kServiceV4, kServicePort)["endpoints"].get<std::set<std::string>>() ==
             expected;
    })) << explain(kServiceV4, kServicePort);
  }

  // One connection after the other, all open at once; the endpoints that they got.
  std::map<std::string, int> spread(PodShell& shell, int count) const {
    std::vector<std::pair<int, std::string>> open;
    for (int i = 0; i < count; ++i) {
      const auto socket = shell.connect(kServiceV4, kServicePort);
      EXPECT_TRUE(socket && socket->error_number == 0);
      if (!socket) {
        return {};
      }
      EXPECT_TRUE(shell.send(socket->id, "ping").has_value());
      const auto pong = shell.receive(socket->id, 4);
      EXPECT_TRUE(pong && pong->text == "ping") << "the client sees nothing but its endpoint";
      open.emplace_back(socket->id, source_of(shell, socket->id));
      const auto live = flows_from(open.back().second);
      EXPECT_EQ(live.size(), 1U);
      EXPECT_NE(live.empty() ? "" : live[0].value("endpoint", ""), "") << "known while it is open";
    }
    std::map<std::string, int> endpoints;
    for (const auto& [id, source] : open) {
      EXPECT_TRUE(shell.close(id).has_value());
      ++endpoints[closed_flow(source).value("endpoint", "")];
    }
    return endpoints;
  }

  void expect_refusal() {
    ST_ASSERT_VALUE(auto socket, shell_->connect(kServiceV4, kServicePort));
    EXPECT_EQ(socket.errno_name, "");  // docs/deviations.md: the refusal follows
    const std::string source = source_of(*shell_, socket.id);
    ST_ASSERT_VALUE(auto end, shell_->receive_to_end(socket.id));
    EXPECT_EQ(end.error_number, ECONNRESET);
    EXPECT_EQ(closed_flow(source)["close"], "refused");
  }

  [[nodiscard]] std::string at(const Pod& pod) const { return endpoint_text(pod.v4, kEcho); }
};

TEST_F(EngineServiceTest, least_connections_spread_evenly) {
  publish({{.address = api_->v4}, {.address = spare_->v4}});
  wait_for_endpoints({api_->v4, spare_->v4});
  EXPECT_EQ(spread(*shell_, 10), (std::map<std::string, int>{{at(*api_), 5}, {at(*spare_), 5}}));
}

TEST_F(EngineServiceTest, client_ip_affinity_stays_with_one_endpoint) {
  ASSERT_NO_FATAL_FAILURE(enrol_neighbour());
  publish({{.address = api_->v4}, {.address = spare_->v4}},
          {{"sessionAffinity", "ClientIP"},
           {"sessionAffinityConfig", {{"clientIP", {{"timeoutSeconds", 600}}}}}});
  wait_for_endpoints({api_->v4, spare_->v4});
  const std::pair chosen(spread(*shell_, 8), spread(*control_, 8));
  EXPECT_EQ(chosen.first.size(), 1U);
  EXPECT_EQ(chosen.second.size(), 1U);
  // Also by engines that have seen neither of the clients.
  for (int i = 0; i < 3; ++i) {
    sidetrack_->engine().kill_hard();
    ST_ASSERT_OK(sidetrack_->start_engine());
    ASSERT_TRUE(eventually(kPatience, [&] {
      return explain(kServiceV4, kServicePort)["reason"] == "redirected" &&
             explain(kServiceV4, kServicePort, "depot/plain")["reason"] == "redirected";
    }));
    EXPECT_EQ(spread(*shell_, 8), chosen.first);
    EXPECT_EQ(spread(*control_, 8), chosen.second);
  }
}

TEST_F(EngineServiceTest, no_endpoints_is_a_refusal) {
  publish({});
  wait_for_endpoints({});
  expect_refusal();
}

TEST_F(EngineServiceTest, refusing_endpoint_is_replaced_before_the_client_sees_anything) {
  publish({{.address = api_->v4}, {.address = plain_->v4}});  // nobody listens in plain
  wait_for_endpoints({api_->v4, plain_->v4});
  EXPECT_EQ(spread(*shell_, 12), (std::map<std::string, int>{{at(*api_), 12}}));
}

TEST_F(EngineServiceTest, silent_endpoint_is_replaced_before_the_client_sees_anything) {
  const std::string silent = "203.0.113.1";  // the node drops what goes there without a word
  ST_ASSERT_OK(lab_->node().ip("route add blackhole 203.0.113.0/24\n"));
  publish({{.address = api_->v4}, {.address = silent}});
  wait_for_endpoints({api_->v4, silent});
  const Clock::time_point began = Clock::now();
  // One of two that are open at once has the silent endpoint for its first.
  EXPECT_EQ(spread(*shell_, 2), (std::map<std::string, int>{{at(*api_), 2}}));
  // The engine gives an endpoint 3 s, if there are others.
  const auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - began);
  EXPECT_GE(took, milliseconds(2500)) << "nobody waited for it";
  EXPECT_LE(took, scaled(milliseconds(5000)));
}

TEST_F(EngineServiceTest, refused_by_all_endpoints_is_a_refusal) {
  publish({{.address = stranger_->v4}, {.address = plain_->v4}});
  wait_for_endpoints({stranger_->v4, plain_->v4});
  expect_refusal();
}

TEST_F(EngineServiceTest, terminating_endpoints_serve_only_when_there_is_no_other) {
  publish({{.address = api_->v4, .ready = false, .terminating = true}, {.address = spare_->v4}});
  wait_for_endpoints({spare_->v4});
  EXPECT_EQ(spread(*shell_, 4), (std::map<std::string, int>{{at(*spare_), 4}}));
  publish({{.address = api_->v4, .ready = false, .terminating = true},
           {.address = spare_->v4, .ready = false, .serving = false}});
  wait_for_endpoints({api_->v4});
  EXPECT_EQ(spread(*shell_, 4), (std::map<std::string, int>{{at(*api_), 4}}));
}

TEST_F(EngineServiceTest, local_traffic_policy_stays_on_the_node) {
  publish({{.address = api_->v4, .node = "node-2"}, {.address = spare_->v4}},
          {{"internalTrafficPolicy", "Local"}});
  wait_for_endpoints({spare_->v4});
  EXPECT_EQ(spread(*shell_, 4), (std::map<std::string, int>{{at(*spare_), 4}}));
}

TEST_F(EngineServiceTest, open_connections_outlive_their_endpoint_list) {
  publish({{.address = api_->v4}});
  wait_for_endpoints({api_->v4});
  ST_ASSERT_VALUE(auto socket, shell_->connect(kServiceV4, kServicePort));
  ST_ASSERT_OK(shell_->send(socket.id, "ping"));
  ST_ASSERT_VALUE(auto pong, shell_->receive(socket.id, 4));
  EXPECT_EQ(pong.text, "ping");
  publish({{.address = spare_->v4}});
  wait_for_endpoints({spare_->v4});
  ST_ASSERT_VALUE(auto done, shell_->exchange(socket.id, 500'000));
  EXPECT_EQ(done.digest, done.expected_digest);
}

// The engine's listener in the pod.
class ListenerTest : public Mesh {
 protected:
  [[nodiscard]] std::vector<std::uint16_t> ports(const char* key) const {
    const auto pod = sidetrack_->pod("shop/web");
    return pod ? (*pod)[key].get<std::vector<std::uint16_t>>() : std::vector<std::uint16_t>();
  }
};

TEST_F(ListenerTest, is_no_open_relay) {
  ASSERT_FALSE(ports("engine_ports").empty());
  ASSERT_FALSE(ports("engine_ports_v6").empty());
  for (const auto& [address, port] :
       {std::pair{std::string("127.0.0.1"), ports("engine_ports").front()},
        {std::string("::1"), ports("engine_ports_v6").front()}}) {
    SCOPED_TRACE(address);
    const Counts before = counts();
    ST_ASSERT_VALUE(auto socket, shell_->connect(address, port));
    // The reset may come before connect() returns.
    if (socket.errno_name != "ECONNRESET") {
      EXPECT_EQ(socket.errno_name, "");
      ST_ASSERT_VALUE(auto end, shell_->receive_to_end(socket.id));
      EXPECT_EQ(end.error_number, ECONNRESET);
      EXPECT_EQ(end.length, 0U);
    }
    EXPECT_EQ(counts(), plus_one(plus_one(before, "local_destination"), "no_original_destination"))
        << "nothing was opened for it";
  }
}

TEST_F(ListenerTest, is_not_reached_from_another_pod) {
  for (const auto& [address, port] : {std::pair{web_->v4, ports("engine_ports").front()},
                                      {web_->v6, ports("engine_ports_v6").front()}}) {
    ST_ASSERT_VALUE(auto socket, control_->connect(address, port));
    EXPECT_EQ(socket.errno_name, "ECONNREFUSED") << address;
  }
}

TEST_F(ListenerTest, leaves_the_pods_own_ports_alone) {
  std::vector<std::uint16_t> declared;
  for (std::uint16_t port = 15900; port < 15950; ++port) {
    declared.push_back(port);
  }
  // Not declared, but there.
  ST_ASSERT_VALUE(auto early, EchoServer::start(place(*stranger_), {"echo:15950"}));
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = "second",
                                     .netns_path = stranger_->netns.path(),
                                     .addresses = {stranger_->v4, stranger_->v6},
                                     .container_ports = declared}));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/second", "enrolled", "redirect"));
  ST_ASSERT_VALUE(auto pod, sidetrack_->pod("shop/second"));
  for (const char* key : {"engine_ports", "engine_ports_v6"}) {
    EXPECT_FALSE(pod[key].empty());
    for (const std::uint16_t port : pod[key]) {
      EXPECT_GT(port, 15950) << pod;
    }
  }
  ST_ASSERT_VALUE(auto second, PodShell::start(place(*stranger_)));
  for (const std::uint16_t port : declared) {
    ST_ASSERT_VALUE(auto listening, second->listen("::", port));
    EXPECT_EQ(listening.error_number, 0) << port;
  }
  ST_ASSERT_VALUE(auto socket, control_->connect(stranger_->v4, 15950));
  ST_ASSERT_VALUE(auto done, control_->exchange(socket.id, 1000));
  EXPECT_EQ(done.digest, done.expected_digest);
}

TEST_F(ListenerTest, endpoint_that_is_the_engine_itself_does_not_loop) {
  const std::uint16_t port = ports("engine_ports").front();
  ServiceSpec loop = service({{.addresses = {"127.0.0.1"}}});
  loop.target_port = port;
  ST_ASSERT_OK(objects_->put(loop));
  ASSERT_TRUE(eventually(kPatience, [&] {
    return explain(kServiceV4, kServicePort)["endpoints"] ==
           json({endpoint_text("127.0.0.1", port)});
  }));
  const Counts before = counts();
  ST_ASSERT_VALUE(auto socket, shell_->connect(kServiceV4, kServicePort));
  ST_ASSERT_VALUE(auto end, shell_->receive_to_end(socket.id));
  EXPECT_EQ(end.error_number, ECONNRESET);
  EXPECT_EQ(counts(), plus_one(plus_one(plus_one(before, "redirected"), "engine_socket"),
                               "no_original_destination"));
}

// As in a cluster of IPv4 alone: pods have no IPv6 address, ::1 neither.
class NoIpv6Test : public Mesh {
 protected:
  void start_sidetrack() override {
    for (const Pod* pod : {web_, plain_}) {
      ST_ASSERT_OK(pod->netns.write_sysctl("ipv6/conf/all/disable_ipv6", "1"));
    }
    ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                       .name = "web",
                                       .netns_path = web_->netns.path(),
                                       .addresses = {web_->v4}}));
    Mesh::start_sidetrack();
  }
};

TEST_F(NoIpv6Test, pod_is_redirected_for_ipv4_and_fails_for_ipv6_as_without) {
  ST_ASSERT_VALUE(const std::uint64_t netns, web_->netns.cookie());
  ST_ASSERT_VALUE(const st_pod row, kernel().pod(netns));
  EXPECT_EQ(row.listeners_v6, 0);
  EXPECT_THAT(row.port_v6_be, testing::Each(0));
  for (const Family family : {Family::kOfAddress, Family::kV6}) {
    ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kEcho, {.family = family}));
    ST_ASSERT_VALUE(const auto role, remembered(*shell_, socket.id));
    EXPECT_EQ(role, "redirected");
    ST_ASSERT_VALUE(auto done, shell_->exchange(socket.id, 1000));
    EXPECT_EQ(done.digest, done.expected_digest);
  }
  for (const Blocking blocking : {Blocking::kYes, Blocking::kNo}) {
    ST_ASSERT_VALUE(auto control, control_->connect(api_->v6, kEcho, {.blocking = blocking}));
    ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v6, kEcho, {.blocking = blocking}));
    EXPECT_NE(control.errno_name, "");
    EXPECT_EQ(socket.errno_name, control.errno_name);
    EXPECT_EQ(socket.first_errno, control.first_errno);
  }
}

// No engine.
class EngineLossTest : public Mesh {
 protected:
  void expect_refused(const std::string& address) {
    for (const Blocking blocking : {Blocking::kYes, Blocking::kNo}) {
      SCOPED_TRACE(address);
      const Counts before = counts();
      ST_ASSERT_VALUE(auto socket, shell_->connect(address, kEcho, {.blocking = blocking}));
      // At once, or (before 5.18) as TCP says it.
      EXPECT_TRUE(socket.first_errno == ECONNREFUSED ||
                  (blocking == Blocking::kNo && socket.first_errno == EINPROGRESS))
          << socket.first_errno;
      EXPECT_EQ(socket.errno_name, "ECONNREFUSED");
      EXPECT_EQ(counts(), plus_one(before, "engine_down_closed"));
      ST_ASSERT_VALUE(const auto role, remembered(*shell_, socket.id));
      EXPECT_EQ(role, "");
      ST_ASSERT_VALUE(auto peer, shell_->peer_name(socket.id));
      EXPECT_EQ(peer.error_number, ENOTCONN);
      // The same socket may try again later.
      ST_ASSERT_VALUE(auto excluded, shell_->connect_again(socket.id, address, kEchoToo));
      EXPECT_EQ(excluded.error_number, blocking == Blocking::kYes ? 0 : excluded.error_number);
    }
  }
};

TEST_F(EngineLossTest, closed_refuses) {
  annotate(kExcludePorts, std::to_string(kEchoToo));
  label(kOnEngineLoss, "closed");
  sidetrack_->engine().kill_hard();
  expect_refused(api_->v4);
  expect_refused(api_->v6);
  const json view = explain(api_->v4, kEcho);
  EXPECT_EQ(view["verdict"], "refused");
  EXPECT_EQ(view["reason"], "engine_down_closed");
  EXPECT_EQ(view["rule"],
            json({{"object", "Namespace/shop"}, {"key", kOnEngineLoss}, {"value", "closed"}}));
  // The next engine takes over.
  ST_ASSERT_OK(sidetrack_->start_engine());
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "redirect"));
  ASSERT_TRUE(
      eventually(kPatience, [&] { return explain(api_->v4, kEcho)["reason"] == "redirected"; }));
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kEcho));
  ST_ASSERT_VALUE(auto done, shell_->exchange(socket.id, 1000));
  EXPECT_EQ(done.digest, done.expected_digest);
}

TEST_F(EngineLossTest, open_goes_direct_and_is_observed) {
  sidetrack_->engine().kill_hard();
  const Counts before = counts();
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kEcho));
  EXPECT_EQ(socket.errno_name, "");
  EXPECT_EQ(counts(), plus_one(before, "engine_down"));
  const std::string source = source_of(*shell_, socket.id);
  ST_ASSERT_VALUE(auto done, shell_->exchange(socket.id, 1000));
  EXPECT_EQ(done.digest, done.expected_digest);
  ST_ASSERT_OK(shell_->close(socket.id));
  const json flow = closed_flow(source);
  EXPECT_EQ(flow["reason"], "engine_down");
  EXPECT_EQ(flow["path"], "direct");
  EXPECT_EQ(flow["bytes_out"], 1000);
}

class NeverAnEngineTest : public EngineLossTest {
 protected:
  void start_sidetrack() override {
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", kOnEngineLoss, "closed"));
    ST_ASSERT_VALUE(sidetrack_, Sidetrack::create(*cgroup_, options_));
    ST_ASSERT_OK(sidetrack_->start_agent());
    ASSERT_TRUE(eventually(kPatience, [&] {
      return explain(api_->v4, kEcho)["reason"] == "engine_down_closed";
    })) << sidetrack_->logs();
  }
};

TEST_F(NeverAnEngineTest, closed_refuses) {
  annotate(kExcludePorts, std::to_string(kEchoToo));
  expect_refused(api_->v4);
  expect_refused(api_->v6);
}

}  // namespace
}  // namespace sidetrack::lab
