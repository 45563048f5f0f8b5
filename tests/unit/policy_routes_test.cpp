// SPDX-License-Identifier: Apache-2.0
// RouteTable: what it makes of changes, one after the other, is what it would make of all objects
// at once.
#include <random>

#include "agent/kube/differences.h"
#include "agent/policy/services.h"
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

constexpr const char* kNode = "n1";
constexpr int kSteps = 300;

Routes compile_all(const kube::ObjectSet& objects) {
  return RouteTable(kNode).update(objects, kube::differences({}, objects));
}

// The same, with nothing between two Services but the rule who has the route.
Routes compile_one_by_one(const kube::ObjectSet& objects) {
  Routes routes;
  kube::ObjectSet alone = objects;
  for (const auto& [key, service] : objects.services) {
    alone.services = {{key, service}};
    routes.merge(compile_all(alone));
  }
  return routes;
}

std::string text_of(const ServiceRoute& route) {
  std::string text = route.service + " " + std::to_string(route.affinity_timeout_s);
  for (const SocketAddress& endpoint : route.endpoints) {
    text += " " + format_endpoint(endpoint.address, endpoint.port);
  }
  return text;
}

std::map<std::string, std::string> text_of(const Routes& routes) {
  std::map<std::string, std::string> text;
  for (const auto& [front, route] : routes) {
    text[front] = route ? text_of(*route) : "gone";
  }
  return text;
}

// What update() has to return, by the tables before and after it.
std::map<std::string, std::string> differences(const Routes& before, const Routes& now) {
  const auto old_text = text_of(before);
  std::map<std::string, std::string> changed;
  for (const auto& [front, text] : text_of(now)) {
    if (const auto old = old_text.find(front); old == old_text.end() || old->second != text) {
      changed[front] = text;
    }
  }
  for (const auto& [front, text] : old_text) {
    if (!now.contains(front)) {
      changed[front] = "gone";
    }
  }
  return changed;
}

// A cluster that is small enough for everything to meet: Services that share an address, slices
// that move to another Service, come before it and stay without it.
class RandomCluster {
 public:
  explicit RandomCluster(std::uint32_t seed) : random_(seed) {}

  const kube::ObjectSet& objects() const { return objects_; }

  void change() {
    switch (below(8)) {
      case 0:
        return put_service();
      case 1:
        objects_.services.erase(service_name(below(2)));
        return;
      case 2:
        return put_node();
      case 3:
        objects_.endpoint_slices.erase(slice_name(below(2)));
        return;
      default:
        return put_slice();
    }
  }

 private:
  int below(int limit) { return static_cast<int>(random_() % static_cast<unsigned>(limit)); }
  bool one_in(int times) { return below(times) == 0; }
  template <typename T>
  T any(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<int>(values.size()))];
  }

  static std::string space(int n) { return n == 0 ? "bank" : "shop"; }
  std::string service_name(int n) { return space(n) + "/" + any({"api", "db", "web"}); }
  std::string slice_name(int n) { return space(n) + "/" + any({"s1", "s2", "s3", "s4", "s5"}); }

  void put_service() {
    const int n = below(2);
    const std::string key = service_name(n);
    kube::Service service;
    service.metadata.namespace_name = space(n);
    service.metadata.name = key.substr(key.find('/') + 1);
    service.type = one_in(8) ? "ExternalName" : "ClusterIP";
    service.cluster_addresses = {any({"10.96.0.1", "10.96.0.2", "10.96.0.3", "None"})};
    if (one_in(2)) {
      service.cluster_addresses.emplace_back(any({"fd96::1", "fd96::2"}));
    }
    for (int i = below(3); i >= 0; --i) {
      service.ports.push_back({.name = any({"http", "sql"}),
                               .protocol = one_in(5) ? "UDP" : "TCP",
                               .port = any<std::uint16_t>({80, 5432})});
    }
    service.client_ip_affinity = one_in(4);
    service.internal_traffic_local = one_in(4);
    objects_.services[key] = service;
  }

  void put_slice() {
    const int n = below(2);
    kube::EndpointSlice& slice = objects_.endpoint_slices[slice_name(n)];
    if (slice.service_name.empty() || one_in(4)) {
      slice.metadata.namespace_name = space(n);
      slice.service_name = any({"api", "db", "web", "none"});
      slice.address_type = one_in(3) ? "IPv6" : "IPv4";
      slice.ports = {{.name = any({"http", "sql"}), .protocol = "TCP", .port = 8080}};
    }
    slice.endpoints.clear();
    for (int i = below(4); i > 0; --i) {
      slice.endpoints.push_back(endpoint(slice.address_type));
    }
  }

  kube::Endpoint endpoint(const std::string& family) {
    kube::Endpoint endpoint;
    endpoint.addresses = {(family == "IPv6" ? "fd00::" : "10.0.0.") + std::to_string(below(5))};
    endpoint.ready = !one_in(3);
    endpoint.terminating = one_in(3);
    endpoint.node_name = any({kNode, "n2"});
    if (!one_in(4)) {
      endpoint.hint_zones = {any({"a", "b"})};
    }
    return endpoint;
  }

  void put_node() {
    const std::string name = any({kNode, "n2"});
    if (one_in(3)) {
      objects_.nodes.erase(name);
    } else {
      objects_.nodes[name].metadata.labels = {{"topology.kubernetes.io/zone", any({"a", "b"})}};
    }
  }

  std::mt19937 random_;
  kube::ObjectSet objects_;
};

class RouteTableTest : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(RouteTableTest, follows_changes_as_if_it_began_anew) {
  RandomCluster cluster(GetParam());
  RouteTable table(kNode);
  for (int step = 0; step < kSteps; ++step) {
    SCOPED_TRACE(step);
    const kube::ObjectSet before = cluster.objects();
    const Routes routes_before = table.routes();
    for (int together = step % 4; together >= 0; --together) {
      cluster.change();
    }
    const Routes changed =
        table.update(cluster.objects(), kube::differences(before, cluster.objects()));
    ASSERT_EQ(text_of(table.routes()), text_of(compile_all(cluster.objects())));
    ASSERT_EQ(text_of(table.routes()), text_of(compile_one_by_one(cluster.objects())));
    ASSERT_EQ(text_of(changed), differences(routes_before, table.routes()));
    for (const auto& [front, route] : table.routes()) {
      const auto known = routes_before.find(front);
      ASSERT_TRUE(changed.contains(front) ||
                  (known != routes_before.end() && known->second == route))
          << front << " is another value, though it says the same";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RouteTableTest, ::testing::Range(1U, 21U));

}  // namespace
}  // namespace sidetrack::policy
