// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/differences.h"
#include "agent/policy/services.h"
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// As node "n1" sees them.
Routes routes_of(const kube::ObjectSet& objects) {
  return RouteTable("n1").update(objects, kube::differences({}, objects));
}

// A Service "shop/db" at 10.96.0.1:5432 (port name "sql") and its slices, seen from node "n1" in
// zone "a".
struct Services {
  kube::ObjectSet objects;

  Services() {
    kube::Service& db = service();
    db.metadata.name = "db";
    db.metadata.namespace_name = "shop";
    db.cluster_addresses = {"10.96.0.1"};
    db.ports = {{.name = "sql", .protocol = "TCP", .port = 5432}};
    objects.nodes["n1"].metadata.labels = {{"topology.kubernetes.io/zone", "a"}};
  }
  kube::Service& service() { return objects.services["shop/db"]; }
  kube::EndpointSlice& slice(const std::string& name, const std::string& family = "IPv4") {
    kube::EndpointSlice& slice = objects.endpoint_slices["shop/" + name];
    slice.metadata.namespace_name = "shop";
    slice.service_name = "db";
    slice.address_type = family;
    slice.ports = {{.name = "sql", .protocol = "TCP", .port = 15432}};
    return slice;
  }
  kube::Endpoint& add(const std::string& address) {
    kube::Endpoint& endpoint = slice("db-1").endpoints.emplace_back();
    endpoint.addresses = {address};
    return endpoint;
  }
  std::vector<std::string> endpoints_of(const std::string& front) {
    std::vector<std::string> texts;
    const auto routes = routes_of(objects);
    for (const SocketAddress& endpoint : routes.at(front)->endpoints) {
      texts.push_back(format_endpoint(endpoint.address, endpoint.port));
    }
    return texts;
  }
  std::vector<std::string> endpoints() { return endpoints_of("10.96.0.1:5432"); }
};

TEST(Services, ready_endpoints_of_all_slices_sorted_and_once) {
  Services s;
  s.add("10.0.0.9");
  s.add("10.0.0.2");
  s.slice("db-2").endpoints = s.slice("db-1").endpoints;
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.2:15432", "10.0.0.9:15432"));
}

TEST(Services, route_names_front_and_service) {
  Services s;
  const auto routes = routes_of(s.objects);
  const ServiceRoute& route = *routes.at("10.96.0.1:5432");
  EXPECT_EQ(route.service, "shop/db:5432");
  EXPECT_EQ(route.front.port, 5432);
  EXPECT_EQ(format_address(route.front.address), "10.96.0.1");
  EXPECT_EQ(route.affinity_timeout_s, 0U);
}

TEST(Services, without_endpoints_is_a_route_that_refuses) {
  Services s;
  EXPECT_THAT(s.endpoints(), IsEmpty());
}

TEST(Services, client_ip_affinity_is_carried) {
  Services s;
  s.service().client_ip_affinity = true;
  s.service().affinity_timeout_s = 60;
  EXPECT_EQ(routes_of(s.objects).at("10.96.0.1:5432")->affinity_timeout_s, 60U);
}

TEST(Services, endpoints_not_ready_are_left_out) {
  Services s;
  s.add("10.0.0.1");
  s.add("10.0.0.2").ready = false;
  kube::Endpoint& leaving = s.add("10.0.0.3");
  leaving.ready = false;
  leaving.terminating = true;
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
}

TEST(Services, endpoint_that_terminates_is_not_ready_whatever_it_says) {
  Services s;
  s.add("10.0.0.1");
  s.add("10.0.0.2").terminating = true;
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
}

TEST(Services, last_resort_are_terminating_endpoints_that_still_serve) {
  Services s;
  for (const auto& [address, serving] :
       {std::pair{"10.0.0.1", true}, std::pair{"10.0.0.2", false}}) {
    kube::Endpoint& endpoint = s.add(address);
    endpoint.ready = false;
    endpoint.serving = serving;
    endpoint.terminating = true;
  }
  kube::Endpoint& starting = s.add("10.0.0.3");
  starting.ready = false;
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
}

TEST(Services, internal_traffic_local_uses_this_node_only) {
  Services s;
  s.service().internal_traffic_local = true;
  s.add("10.0.0.1").node_name = "n1";
  s.add("10.0.0.2").node_name = "n2";
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
}

TEST(Services, internal_traffic_local_without_a_local_endpoint_refuses) {
  Services s;
  s.service().internal_traffic_local = true;
  s.add("10.0.0.2").node_name = "n2";
  EXPECT_THAT(s.endpoints(), IsEmpty());
}

TEST(Services, internal_traffic_local_falls_back_to_local_draining_ones) {
  Services s;
  s.service().internal_traffic_local = true;
  s.add("10.0.0.2").node_name = "n2";
  kube::Endpoint& draining = s.add("10.0.0.1");
  draining.node_name = "n1";
  draining.ready = false;
  draining.terminating = true;
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
}

TEST(ServiceHints, endpoints_for_our_zone_are_used) {
  Services s;
  s.add("10.0.0.1").hint_zones = {"a"};
  s.add("10.0.0.2").hint_zones = {"b"};
  s.add("10.0.0.3").hint_zones = {"b", "a"};
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432", "10.0.0.3:15432"));
}

TEST(ServiceHints, one_endpoint_without_a_hint_turns_them_off) {
  Services s;
  s.add("10.0.0.1").hint_zones = {"a"};
  s.add("10.0.0.2");
  EXPECT_THAT(s.endpoints(), SizeIs(2));
}

TEST(ServiceHints, endpoint_that_is_not_ready_needs_no_hint) {
  Services s;
  s.add("10.0.0.1").hint_zones = {"a"};
  s.add("10.0.0.2").hint_zones = {"b"};
  s.add("10.0.0.3").ready = false;
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
}

TEST(ServiceHints, are_not_used_when_none_is_for_our_zone) {
  Services s;
  s.add("10.0.0.1").hint_zones = {"b"};
  s.add("10.0.0.2").hint_zones = {"c"};
  EXPECT_THAT(s.endpoints(), SizeIs(2));
}

TEST(ServiceHints, are_not_used_by_a_node_without_a_zone) {
  Services s;
  s.objects.nodes["n1"].metadata.labels.clear();
  s.add("10.0.0.1").hint_zones = {"a"};
  s.add("10.0.0.2").hint_zones = {"b"};
  EXPECT_THAT(s.endpoints(), SizeIs(2));
}

TEST(ServiceHints, do_not_narrow_internal_traffic_local) {
  Services s;
  s.service().internal_traffic_local = true;
  kube::Endpoint& near = s.add("10.0.0.1");
  near.node_name = "n1";
  near.hint_zones = {"a"};
  kube::Endpoint& other = s.add("10.0.0.2");
  other.node_name = "n1";
  other.hint_zones = {"b"};
  EXPECT_THAT(s.endpoints(), SizeIs(2));
}

TEST(Services, ports_are_matched_by_name_and_tcp_only) {
  Services s;
  s.service().ports = {{.name = "sql", .protocol = "TCP", .port = 5432},
                       {.name = "stats", .protocol = "TCP", .port = 9100},
                       {.name = "sync", .protocol = "UDP", .port = 7000}};
  s.add("10.0.0.1");
  s.slice("db-1").ports = {{.name = "stats", .protocol = "TCP", .port = 19100},
                           {.name = "sql", .protocol = "UDP", .port = 1},
                           {.name = "sql", .protocol = "TCP", .port = 15432}};
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
  EXPECT_THAT(s.endpoints_of("10.96.0.1:9100"), ElementsAre("10.0.0.1:19100"));
  EXPECT_THAT(routes_of(s.objects), SizeIs(2));
}

TEST(Services, both_families_have_routes_with_endpoints_of_their_own) {
  Services s;
  s.service().cluster_addresses = {"10.96.0.1", "fd96::1"};
  s.add("10.0.0.1");
  s.slice("db-v6", "IPv6").endpoints.emplace_back().addresses = {"fd00::1"};
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
  EXPECT_THAT(s.endpoints_of("[fd96::1]:5432"), ElementsAre("[fd00::1]:15432"));
}

TEST(Services, headless_and_external_name_have_no_route) {
  Services s;
  s.service().cluster_addresses = {};
  EXPECT_THAT(routes_of(s.objects), IsEmpty());
  s.service().cluster_addresses = {"None"};
  EXPECT_THAT(routes_of(s.objects), IsEmpty());
  s.service().cluster_addresses = {"10.96.0.1"};
  s.service().type = "ExternalName";
  EXPECT_THAT(routes_of(s.objects), IsEmpty());
}

TEST(Services, node_port_and_load_balancer_have_a_cluster_address_too) {
  Services s;
  s.service().type = "LoadBalancer";
  EXPECT_THAT(routes_of(s.objects), SizeIs(1));
}

TEST(Services, slices_of_other_services_namespaces_and_kinds_are_ignored) {
  Services s;
  s.add("10.0.0.1");
  s.slice("other").endpoints.emplace_back().addresses = {"10.0.0.2"};
  s.slice("foreign").endpoints.emplace_back().addresses = {"10.0.0.3"};
  s.objects.endpoint_slices["shop/foreign"].metadata.namespace_name = "bank";
  s.slice("names", "FQDN").endpoints.emplace_back().addresses = {"10.0.0.4"};
  s.objects.endpoint_slices["shop/other"].service_name = "db2";
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
}

TEST(Services, address_that_does_not_parse_is_left_out) {
  Services s;
  s.add("10.0.0.1");
  s.add("nonsense");
  s.add("").addresses.clear();
  EXPECT_THAT(s.endpoints(), ElementsAre("10.0.0.1:15432"));
}

}  // namespace
}  // namespace sidetrack::policy
