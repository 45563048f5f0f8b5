// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/object_text.h"

#include <utility>

#include <nlohmann/json.hpp>

namespace sidetrack::kube {
namespace {

using nlohmann::json;

json metadata_of(const Metadata& metadata) {
  json value = {{"name", metadata.name}};
  if (!metadata.namespace_name.empty()) {
    value["namespace"] = metadata.namespace_name;
  }
  if (!metadata.uid.empty()) {
    value["uid"] = metadata.uid;
  }
  if (!metadata.labels.empty()) {
    value["labels"] = metadata.labels;
  }
  if (!metadata.annotations.empty()) {
    value["annotations"] = metadata.annotations;
  }
  return value;
}

json base(const char* version, const char* kind, const Metadata& metadata) {
  return {{"apiVersion", version}, {"kind", kind}, {"metadata", metadata_of(metadata)}};
}

json to_json(const Namespace& object) {
  return base("v1", "Namespace", object.metadata);
}

json to_json(const Node& object) {
  return base("v1", "Node", object.metadata);
}

json to_json(const Pod& pod) {
  json value = base("v1", "Pod", pod.metadata);
  json& spec = value["spec"];
  spec = {{"nodeName", pod.node_name}, {"hostNetwork", pod.host_network}};
  json ports = json::array();
  for (const std::uint16_t port : pod.container_ports) {
    ports.push_back({{"containerPort", port}});
  }
  if (!pod.runtime_class.empty()) {
    spec["runtimeClassName"] = pod.runtime_class;
  }
  if (!ports.empty() || !pod.mesh_container.empty()) {
    spec["containers"] = json::array({{{"name", pod.mesh_container}, {"ports", std::move(ports)}}});
  }
  json& status = value["status"];
  status = {{"phase", pod.phase}};
  for (const std::string& address : pod.addresses) {
    status["podIPs"].push_back({{"ip", address}});
  }
  // Only the controller is known, as "Kind/name".
  if (const std::size_t slash = pod.owner.find('/'); slash != std::string::npos) {
    value["metadata"]["ownerReferences"] = json::array({{{"controller", true},
                                                         {"kind", pod.owner.substr(0, slash)},
                                                         {"name", pod.owner.substr(slash + 1)}}});
  }
  return value;
}

json to_json(const Service& service) {
  json value = base("v1", "Service", service.metadata);
  json& spec = value["spec"];
  spec = {{"type", service.type}};
  if (!service.cluster_addresses.empty()) {
    spec["clusterIPs"] = service.cluster_addresses;
  }
  for (const ServicePort& port : service.ports) {
    spec["ports"].push_back(
        {{"name", port.name}, {"protocol", port.protocol}, {"port", port.port}});
  }
  if (service.client_ip_affinity) {
    spec["sessionAffinity"] = "ClientIP";
  }
  spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] = service.affinity_timeout_s;
  if (service.internal_traffic_local) {
    spec["internalTrafficPolicy"] = "Local";
  }
  if (service.topology_hints) {
    spec["trafficDistribution"] = "PreferClose";
  }
  return value;
}

json to_json(const Endpoint& endpoint) {
  json value = {{"addresses", endpoint.addresses},
                {"conditions",
                 {{"ready", endpoint.ready},
                  {"serving", endpoint.serving},
                  {"terminating", endpoint.terminating}}}};
  if (!endpoint.node_name.empty()) {
    value["nodeName"] = endpoint.node_name;
  }
  if (!endpoint.zone.empty()) {
    value["zone"] = endpoint.zone;
  }
  for (const std::string& zone : endpoint.hint_zones) {
    value["hints"]["forZones"].push_back({{"name", zone}});
  }
  return value;
}

json to_json(const EndpointSlice& slice) {
  json value = base("discovery.k8s.io/v1", "EndpointSlice", slice.metadata);
  if (!slice.service_name.empty()) {
    value["metadata"]["labels"]["kubernetes.io/service-name"] = slice.service_name;
  }
  value["addressType"] = slice.address_type;
  for (const EndpointPort& port : slice.ports) {
    value["ports"].push_back(
        {{"name", port.name}, {"protocol", port.protocol}, {"port", port.port}});
  }
  for (const Endpoint& endpoint : slice.endpoints) {
    value["endpoints"].push_back(to_json(endpoint));
  }
  return value;
}

void drop(Metadata& metadata) {
  metadata.annotations.erase("kubectl.kubernetes.io/last-applied-configuration");
}

}  // namespace

std::string to_text(const Object& object) {
  const json value = std::visit([](const auto& known) { return to_json(known); }, object);
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void drop_unused(Object& object) {
  if (auto* space = std::get_if<Namespace>(&object)) {
    drop(space->metadata);
  } else if (auto* pod = std::get_if<Pod>(&object)) {
    drop(pod->metadata);
  } else if (auto* node = std::get_if<Node>(&object)) {
    node->metadata.annotations.clear();
  } else if (auto* service = std::get_if<Service>(&object)) {
    service->metadata.labels.clear();
    service->metadata.annotations.clear();
  } else if (auto* slice = std::get_if<EndpointSlice>(&object)) {
    slice->metadata.labels.clear();
    slice->metadata.annotations.clear();
  }
}

}  // namespace sidetrack::kube
