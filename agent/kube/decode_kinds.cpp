// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/decode_kinds.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace sidetrack::kube {
namespace {

constexpr std::uint32_t kMaxAffinitySeconds = 86400;

std::string name_of(const Field& field, std::string text) {
  if (!text.empty() && !is_kubernetes_name(text)) {
    field.fail("is not a Kubernetes name (lower case letters, digits, - and ., at most 253)");
  }
  return text;
}

Metadata decode_metadata(const Field& object, bool namespaced) {
  const Field field = object.at("metadata");
  Metadata metadata;
  metadata.name = name_of(field.at("name"), field.at("name").required_text());
  if (namespaced) {
    metadata.namespace_name = name_of(field.at("namespace"), field.at("namespace").text());
    if (metadata.namespace_name.empty()) {
      metadata.namespace_name = "default";
    }
  }
  metadata.uid = field.at("uid").text();
  metadata.labels = field.at("labels").text_map();
  metadata.annotations = field.at("annotations").text_map();
  return metadata;
}

bool is_address(const std::string& text, int family) {
  std::array<unsigned char, 16> bytes{};
  return ::inet_pton(family, text.c_str(), bytes.data()) == 1;
}

// Adds the address in `field` if it is one; "" and "None" (headless) stand for no address.
void add_address(const Field& field, std::vector<std::string>& addresses) {
  std::string text = field.text();
  if (text.empty() || text == "None") {
    return;
  }
  if (!is_address(text, AF_INET) && !is_address(text, AF_INET6)) {
    field.fail("is not an IP address");
    return;
  }
  addresses.push_back(std::move(text));
}

std::string protocol_of(const Field& port) {
  return port.at("protocol").text("TCP");
}

std::string controller_of(const Field& object) {
  for (const Field& owner : object.at("metadata").at("ownerReferences").items()) {
    if (owner.at("controller").boolean(false)) {
      return owner.at("kind").required_text() + "/" + owner.at("name").required_text();
    }
  }
  return {};
}

// By the names that injectors give.
bool is_mesh_proxy(const std::string& name) {
  return name == "istio-proxy" || name == "linkerd-proxy" || name == "kuma-sidecar" ||
         name == "consul-dataplane";
}

void note_mesh_container(const Field& container, Pod& pod) {
  if (std::string name = container.at("name").text(); is_mesh_proxy(name)) {
    pod.mesh_container = std::move(name);
  }
}

// "Auto" in the annotation (either name) or any trafficDistribution; "Disabled" is the one value
// that means no.
bool wants_topology(const Metadata& metadata, const Field& spec) {
  for (const char* key :
       {"service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"}) {
    const auto found = metadata.annotations.find(key);
    if (found != metadata.annotations.end() && !found->second.empty()) {
      return found->second != "Disabled" && found->second != "disabled";
    }
  }
  return !spec.at("trafficDistribution").text().empty();
}

Endpoint decode_endpoint(const Field& field, int family) {
  const Field conditions = field.at("conditions");
  Endpoint endpoint;
  for (const Field& item : field.at("addresses").items()) {
    std::string text = item.required_text();
    if (!text.empty() && !is_address(text, family)) {
      item.fail(family == AF_INET ? "is not an IPv4 address" : "is not an IPv6 address");
    }
    endpoint.addresses.push_back(std::move(text));
  }
  if (endpoint.addresses.empty()) {
    field.at("addresses").fail("must name at least one address");
  }
  endpoint.ready = conditions.at("ready").boolean(true);
  endpoint.serving = conditions.at("serving").boolean(endpoint.ready);
  endpoint.terminating = conditions.at("terminating").boolean(false);
  endpoint.node_name = field.at("nodeName").text();
  endpoint.zone = field.at("zone").text();
  for (const Field& zone : field.at("hints").at("forZones").items()) {
    endpoint.hint_zones.push_back(zone.at("name").required_text());
  }
  return endpoint;
}

}  // namespace

bool is_kubernetes_name(std::string_view name) {
  const auto alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !name.empty() && name.size() <= 253 && alnum(name.front()) && alnum(name.back()) &&
         std::all_of(name.begin(), name.end(),
                     [&](char c) { return alnum(c) || c == '-' || c == '.'; });
}

Object decode_namespace(const Field& object) {
  return Namespace{.metadata = decode_metadata(object, false)};
}

Object decode_node(const Field& object) {
  return Node{.metadata = decode_metadata(object, false)};
}

Object decode_pod(const Field& object) {
  const Field spec = object.at("spec");
  const Field status = object.at("status");
  Pod pod;
  pod.metadata = decode_metadata(object, true);
  pod.node_name = spec.at("nodeName").text();
  pod.host_network = spec.at("hostNetwork").boolean(false);
  pod.phase = status.at("phase").text();
  pod.owner = controller_of(object);
  for (const Field& item : status.at("podIPs").items()) {
    add_address(item.at("ip"), pod.addresses);
  }
  if (pod.addresses.empty()) {
    add_address(status.at("podIP"), pod.addresses);
  }
  pod.runtime_class = spec.at("runtimeClassName").text();
  for (const Field& container : spec.at("initContainers").items()) {
    note_mesh_container(container, pod);  // a native sidecar
  }
  for (const Field& container : spec.at("containers").items()) {
    note_mesh_container(container, pod);
    for (const Field& port : container.at("ports").items()) {
      const std::uint16_t number = port.at("containerPort").required_port();
      if (protocol_of(port) == "TCP") {
        pod.container_ports.push_back(number);
      }
    }
  }
  return pod;
}

Object decode_service(const Field& object) {
  const Field spec = object.at("spec");
  Service service;
  service.metadata = decode_metadata(object, true);
  service.type = spec.at("type").text("ClusterIP");
  for (const Field& item : spec.at("clusterIPs").items()) {
    add_address(item, service.cluster_addresses);
  }
  if (service.cluster_addresses.empty()) {
    add_address(spec.at("clusterIP"), service.cluster_addresses);
  }
  for (const Field& item : spec.at("ports").items()) {
    service.ports.push_back(ServicePort{.name = item.at("name").text(),
                                        .protocol = protocol_of(item),
                                        .port = item.at("port").required_port()});
  }
  service.client_ip_affinity = spec.at("sessionAffinity").text() == "ClientIP";
  service.affinity_timeout_s = spec.at("sessionAffinityConfig")
                                   .at("clientIP")
                                   .at("timeoutSeconds")
                                   .number(1, kMaxAffinitySeconds, service.affinity_timeout_s);
  service.internal_traffic_local = spec.at("internalTrafficPolicy").text() == "Local";
  service.topology_hints = wants_topology(service.metadata, spec);
  return service;
}

Object decode_endpoint_slice(const Field& object) {
  EndpointSlice slice;
  slice.metadata = decode_metadata(object, true);
  const auto service = slice.metadata.labels.find("kubernetes.io/service-name");
  if (service != slice.metadata.labels.end()) {
    slice.service_name = service->second;
  }
  const Field address_type = object.at("addressType");
  slice.address_type = address_type.required_text();
  if (slice.address_type == "FQDN") {
    return slice;  // decode() leaves it out
  }
  if (slice.address_type != "IPv4" && slice.address_type != "IPv6") {
    if (!slice.address_type.empty()) {
      address_type.fail("must be IPv4, IPv6 or FQDN");
    }
    return slice;
  }
  for (const Field& item : object.at("ports").items()) {
    const Field port = item.at("port");
    if (!port.present()) {
      continue;  // "all ports" says nothing that a Service port could be matched with
    }
    slice.ports.push_back(EndpointPort{.name = item.at("name").text(),
                                       .protocol = protocol_of(item),
                                       .port = port.required_port()});
  }
  const int family = slice.address_type == "IPv4" ? AF_INET : AF_INET6;
  for (const Field& item : object.at("endpoints").items()) {
    slice.endpoints.push_back(decode_endpoint(item, family));
  }
  return slice;
}

}  // namespace sidetrack::kube
