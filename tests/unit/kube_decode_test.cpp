// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include <nlohmann/json.hpp>

#include "agent/kube/decode.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;
using testing::ElementsAre;

template <typename T>
T only(const json& value) {
  const Decoded decoded = decode(value);
  EXPECT_TRUE(decoded.issues.empty())
      << decoded.issues.front().pointer << ": " << decoded.issues.front().reason;
  if (decoded.objects.size() != 1 || !std::holds_alternative<T>(decoded.objects[0].object)) {
    ADD_FAILURE() << "not the one object wanted";
    return {};
  }
  return std::get<T>(decoded.objects[0].object);
}

TEST(Decode, reads_a_namespace) {
  const auto result = only<Namespace>(json::parse(R"({"apiVersion": "v1", "kind": "Namespace",
    "metadata": {"name": "shop", "uid": "u", "labels": {"sidetrack.io/mode": "redirect"}, "annotations": null}})"));
  EXPECT_EQ(result.metadata.name, "shop");
  EXPECT_EQ(result.metadata.namespace_name, "");
  EXPECT_EQ(result.metadata.uid, "u");
  EXPECT_EQ(result.metadata.labels.at("sidetrack.io/mode"), "redirect");
  EXPECT_TRUE(result.metadata.annotations.empty());
}

TEST(Decode, reads_a_pod) {
  const auto pod = only<Pod>(json::parse(R"({"apiVersion": "v1", "kind": "Pod",
    "metadata": {"name": "web-0", "namespace": "shop", "annotations": {"a": "b"}, "resourceVersion": "7",
      "ownerReferences": [{"kind": "X", "name": "x"}, {"kind": "ReplicaSet", "name": "web", "controller": true}]},
    "spec": {"runtimeClassName": "kata-qemu", "nodeName": "n1", "hostNetwork": true, "containers": [
      {"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]},
      {"name": "b"}, {"name": "linkerd-proxy"}, {"name": "c", "ports": [{"containerPort": 65535, "protocol": "TCP"}]}]},
    "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}})"));
  EXPECT_EQ(pod.metadata.namespace_name, "shop");
  EXPECT_EQ(pod.node_name, "n1");
  EXPECT_TRUE(pod.host_network);
  EXPECT_EQ(pod.phase, "Running");
  EXPECT_EQ(pod.owner, "ReplicaSet/web");
  EXPECT_THAT(pod.addresses, ElementsAre("10.0.0.1", "fd00::1"));
  EXPECT_THAT(pod.container_ports, ElementsAre(80, 65535));
  EXPECT_EQ(pod.mesh_container, "linkerd-proxy");
  EXPECT_EQ(pod.runtime_class, "kata-qemu");
}

TEST(Decode, a_bare_pod_has_defaults) {
  const auto pod =
      only<Pod>(json::parse(R"({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})"));
  EXPECT_EQ(pod.metadata.namespace_name, "default");
  EXPECT_FALSE(pod.host_network);
  EXPECT_TRUE(pod.addresses.empty());
  EXPECT_EQ(pod.owner, "");
}

TEST(Decode, pod_ip_stands_in_for_pod_ips) {
  const auto pod = only<Pod>(json::parse(
      R"({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": {"podIP": "10.0.0.9"}})"));
  EXPECT_THAT(pod.addresses, ElementsAre("10.0.0.9"));
}

TEST(Decode, reads_a_service) {
  const auto service = only<Service>(json::parse(R"({"apiVersion": "v1", "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop", "annotations": {"service.kubernetes.io/topology-mode": "Auto"}},
    "spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::60"],
      "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"port": 53, "protocol": "UDP"}],
      "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
      "internalTrafficPolicy": "Local"}})"));
  EXPECT_EQ(service.type, "NodePort");
  EXPECT_THAT(service.cluster_addresses, ElementsAre("10.96.0.1", "fd00::60"));
  ASSERT_EQ(service.ports.size(), 2U);
  EXPECT_EQ(service.ports[0], (ServicePort{.name = "http", .protocol = "TCP", .port = 80}));
  EXPECT_EQ(service.ports[1].protocol, "UDP");
  EXPECT_TRUE(service.client_ip_affinity);
  EXPECT_EQ(service.affinity_timeout_s, 60U);
  EXPECT_TRUE(service.internal_traffic_local);
  EXPECT_TRUE(service.topology_hints);
}

TEST(Decode, a_headless_service_has_no_address) {
  const auto service = only<Service>(json::parse(
      R"({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}})"));
  EXPECT_TRUE(service.cluster_addresses.empty());
  EXPECT_EQ(service.type, "ClusterIP");
  EXPECT_EQ(service.affinity_timeout_s, 10800U);
  EXPECT_FALSE(service.topology_hints);
}

TEST(Decode, traffic_distribution_asks_for_topology_hints) {
  EXPECT_TRUE(
      only<Service>(
          json::parse(
              R"({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"trafficDistribution": "PreferClose"}})"))
          .topology_hints);
  EXPECT_FALSE(only<Service>(json::parse(
                                 R"({"apiVersion": "v1", "kind": "Service",
          "metadata": {"name": "a", "annotations": {"service.kubernetes.io/topology-mode": "Disabled"}}})"))
                   .topology_hints);
}

TEST(Decode, reads_an_endpoint_slice) {
  const auto slice = only<EndpointSlice>(
      json::parse(R"({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
    "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "all"}],
    "endpoints": [
      {"addresses": ["10.0.0.1"], "nodeName": "n1", "zone": "a", "hints": {"forZones": [{"name": "a"}, {"name": "b"}]}},
      {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
      {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}]})"));
  EXPECT_EQ(slice.service_name, "web");
  EXPECT_EQ(slice.address_type, "IPv4");
  ASSERT_EQ(slice.ports.size(), 1U) << "a port without a number says nothing";
  EXPECT_EQ(slice.ports[0], (EndpointPort{.name = "http", .protocol = "TCP", .port = 8080}));
  ASSERT_EQ(slice.endpoints.size(), 3U);
  EXPECT_TRUE(slice.endpoints[0].ready);
  EXPECT_TRUE(slice.endpoints[0].serving);
  EXPECT_FALSE(slice.endpoints[0].terminating);
  EXPECT_THAT(slice.endpoints[0].hint_zones, ElementsAre("a", "b"));
  EXPECT_EQ(slice.endpoints[0].zone, "a");
  EXPECT_FALSE(slice.endpoints[1].serving) << "serving follows ready where it is not given";
  EXPECT_TRUE(slice.endpoints[2].serving);
  EXPECT_TRUE(slice.endpoints[2].terminating);
}

TEST(Decode, reads_lists_of_both_kinds) {
  const Decoded list = decode(json::parse(R"({"apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}, {"apiVersion": "v1", "kind": "Node", "metadata": {}}]})"));
  ASSERT_EQ(list.objects.size(), 1U);
  EXPECT_EQ(list.objects[0].pointer, "/items/0");
  ASSERT_EQ(list.issues.size(), 1U);
  EXPECT_EQ(list.issues[0].pointer, "/items/1/metadata/name");
  const Decoded answer =
      decode(json::parse(R"({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
    "items": [{"metadata": {"name": "a"}, "addressType": "IPv6"}]})"));
  ASSERT_EQ(answer.objects.size(), 1U);
  EXPECT_EQ(object_name(answer.objects[0].object), "EndpointSlice/default/a");
}

TEST(Decode, passes_over_what_it_does_not_read) {
  const Decoded config = decode(json::parse(
      R"({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}})"));
  EXPECT_TRUE(config.objects.empty());
  EXPECT_TRUE(config.issues.empty());
  const Decoded other = decode(
      json::parse(R"({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}})"));
  ASSERT_EQ(other.issues.size(), 1U);
  EXPECT_TRUE(other.issues[0].warning);
  EXPECT_EQ(other.issues[0].object, "Deployment/default/a");
  const Decoded fqdn = decode(json::parse(
      R"({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "a"}, "addressType": "FQDN"})"));
  EXPECT_TRUE(fqdn.objects.empty());
  ASSERT_EQ(fqdn.issues.size(), 1U);
  EXPECT_TRUE(fqdn.issues[0].warning);
}

struct ErrorRow {
  const char* name;
  const char* patch;  // merged over a good object
  const char* kind;
  const char* pointer;
  const char* reason;
};

class DecodeErrors : public testing::TestWithParam<ErrorRow> {};

TEST_P(DecodeErrors, name_the_field) {
  const bool slice = std::string(GetParam().kind) == "EndpointSlice";
  json value = {{"apiVersion", slice ? "discovery.k8s.io/v1" : "v1"},
                {"kind", GetParam().kind},
                {"metadata", {{"name", "a"}}}};
  if (slice) {
    value["addressType"] = "IPv4";
  }
  value.merge_patch(json::parse(GetParam().patch));
  const Decoded decoded = decode(value);
  EXPECT_TRUE(decoded.objects.empty());
  ASSERT_EQ(decoded.issues.size(), 1U);
  EXPECT_EQ(decoded.issues[0].pointer, GetParam().pointer);
  EXPECT_NE(decoded.issues[0].reason.find(GetParam().reason), std::string::npos)
      << decoded.issues[0].reason;
  EXPECT_FALSE(decoded.issues[0].warning);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, DecodeErrors,
    testing::Values(
        ErrorRow{"no_name", R"({"metadata": {"name": null, "uid": "x"}})", "Pod", "/metadata/name",
                 "missing"},
        ErrorRow{"empty_name", R"({"metadata": {"name": ""}})", "Pod", "/metadata/name", "empty"},
        ErrorRow{"name_number", R"({"metadata": {"name": 7}})", "Node", "/metadata/name",
                 "quote it"},
        ErrorRow{"name_slash", R"({"metadata": {"name": "a/b"}})", "Pod", "/metadata/name",
                 "not a Kubernetes name"},
        ErrorRow{"namespace_slash", R"({"metadata": {"namespace": "A"}})", "Pod",
                 "/metadata/namespace", "not a Kubernetes name"},
        ErrorRow{"metadata_text", R"({"metadata": "x"})", "Pod", "/metadata", "must be an object"},
        ErrorRow{"no_kind", R"({"kind": null})", "Pod", "/kind", "missing"},
        ErrorRow{"no_version", R"({"apiVersion": null})", "Pod", "/apiVersion", "missing"},
        ErrorRow{"label_bool", R"({"metadata": {"labels": {"a/b": true}}})", "Pod",
                 "/metadata/labels/a~1b", "quote it"},
        ErrorRow{"annotation_number", R"({"metadata": {"annotations": {"a": 1}}})", "Pod",
                 "/metadata/annotations/a", "quote it"},
        ErrorRow{"labels_list", R"({"metadata": {"labels": []}})", "Pod", "/metadata/labels",
                 "object"},
        ErrorRow{"host_network_text", R"({"spec": {"hostNetwork": "yes"}})", "Pod",
                 "/spec/hostNetwork", "true or false"},
        ErrorRow{"spec_list", R"({"spec": []})", "Pod", "/spec", "must be an object"},
        ErrorRow{"containers_object", R"({"spec": {"containers": {}}})", "Pod", "/spec/containers",
                 "list"},
        ErrorRow{"container_port_zero",
                 R"({"spec": {"containers": [{"ports": [{"containerPort": 0}]}]}})", "Pod",
                 "/spec/containers/0/ports/0/containerPort", "1-65535"},
        ErrorRow{"container_port_missing", R"({"spec": {"containers": [{"ports": [{}]}]}})", "Pod",
                 "/spec/containers/0/ports/0/containerPort", "missing"},
        ErrorRow{"pod_address", R"({"status": {"podIPs": [{"ip": "10.0.0"}]}})", "Pod",
                 "/status/podIPs/0/ip", "IP address"},
        ErrorRow{"port_negative", R"({"spec": {"ports": [{"port": -1}]}})", "Service",
                 "/spec/ports/0/port", "1-65535"},
        ErrorRow{"port_large", R"({"spec": {"ports": [{"port": 65536}]}})", "Service",
                 "/spec/ports/0/port", "1-65535"},
        ErrorRow{"port_huge", R"({"spec": {"ports": [{"port": 18446744073709551615}]}})", "Service",
                 "/spec/ports/0/port", "1-65535"},
        ErrorRow{"port_fraction", R"({"spec": {"ports": [{"port": 80.0}]}})", "Service",
                 "/spec/ports/0/port", "whole number"},
        ErrorRow{"port_text", R"({"spec": {"ports": [{"port": "80"}]}})", "Service",
                 "/spec/ports/0/port", "whole number"},
        ErrorRow{"affinity_timeout",
                 R"({"spec": {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}})",
                 "Service", "/spec/sessionAffinityConfig/clientIP/timeoutSeconds", "1-86400"},
        ErrorRow{"cluster_address", R"({"spec": {"clusterIPs": ["web"]}})", "Service",
                 "/spec/clusterIPs/0", "IP address"},
        ErrorRow{"no_address_type", R"({"addressType": null})", "EndpointSlice", "/addressType",
                 "missing"},
        ErrorRow{"address_type", R"({"addressType": "ipv4"})", "EndpointSlice", "/addressType",
                 "IPv4, IPv6"},
        ErrorRow{"wrong_family", R"({"endpoints": [{"addresses": ["fd00::1"]}]})", "EndpointSlice",
                 "/endpoints/0/addresses/0", "IPv4"},
        ErrorRow{"no_addresses", R"({"endpoints": [{"nodeName": "a"}]})", "EndpointSlice",
                 "/endpoints/0/addresses", "at least one"},
        ErrorRow{"condition_text",
                 R"({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": "true"}}]})",
                 "EndpointSlice", "/endpoints/0/conditions/ready", "true or false"}),
    [](const auto& row) { return row.param.name; });

TEST(Decode, a_value_that_is_no_object_is_an_error) {
  for (const json& value : {json(7), json("x"), json::array(), json(nullptr)}) {
    const Decoded decoded = decode(value);
    ASSERT_EQ(decoded.issues.size(), 1U);
    EXPECT_EQ(decoded.issues[0].reason, "must be a Kubernetes object");
  }
}

TEST(Decode, an_object_over_4_MiB_or_too_deep_is_an_error) {
  json large = {{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", {{"name", "a"}}}};
  json deep = large;
  large["spec"] = std::string(kMaxObjectBytes, 'x');
  json* inner = &deep["spec"];
  for (std::size_t depth = 0; depth < kMaxObjectDepth; ++depth) {
    inner = &(*inner)["x"];
  }
  EXPECT_EQ(decode(large).issues.size(), 1U);
  EXPECT_EQ(decode(deep).issues.size(), 1U);
  EXPECT_TRUE(decode(large).objects.empty());
  EXPECT_TRUE(decode(deep).objects.empty());
}

TEST(Decode, offending_values_are_cut_between_characters) {
  std::string text(199, 'x');
  text += "\xc3\xa4\xc3\xa4";
  const Decoded decoded =
      decode({{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", {{"name", text}}}});
  ASSERT_EQ(decoded.issues.size(), 1U);
  EXPECT_EQ(decoded.issues[0].value, std::string(199, 'x'));
}

TEST(Decode, put_object_says_whether_the_name_is_new) {
  Node node;
  node.metadata.name = "a";
  Pod pod;
  pod.metadata.name = "a";
  pod.metadata.namespace_name = "n";
  ObjectSet set;
  EXPECT_TRUE(put_object(set, node));
  node.metadata.uid = "2";
  EXPECT_FALSE(put_object(set, node));
  EXPECT_EQ(set.nodes.at("a").metadata.uid, "2");
  EXPECT_TRUE(put_object(set, pod));
  EXPECT_TRUE(set.pods.contains("n/a"));
}

}  // namespace
}  // namespace sidetrack::kube
