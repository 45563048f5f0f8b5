// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/decode.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/kube/fields.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;

constexpr std::uint32_t kMaxAffinitySeconds = 86400;

// The names that Kubernetes allows (RFC 1123 subdomain). "/" would make the keys of ObjectSet
// ambiguous.
bool is_kubernetes_name(std::string_view name) {
  const auto alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !name.empty() && name.size() <= 253 && alnum(name.front()) && alnum(name.back()) &&
         std::all_of(name.begin(), name.end(),
                     [&](char c) { return alnum(c) || c == '-' || c == '.'; });
}

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

Object decode_namespace(const Field& object) {
  return Namespace{.metadata = decode_metadata(object, false)};
}

Object decode_node(const Field& object) {
  return Node{.metadata = decode_metadata(object, false)};
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

struct Kind {
  std::string_view api_version;
  std::string_view name;
  Object (*decode)(const Field&);  // null: known and of no use
};
constexpr std::array kKinds{
    Kind{"v1", "Namespace", decode_namespace},
    Kind{"v1", "Pod", decode_pod},
    Kind{"v1", "Service", decode_service},
    Kind{"v1", "Node", decode_node},
    Kind{"v1", "ConfigMap", nullptr},
    Kind{"discovery.k8s.io/v1", "EndpointSlice", decode_endpoint_slice},
};

const Kind* find_kind(std::string_view api_version, std::string_view name) {
  const auto* found = std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& kind) {
    return kind.api_version == api_version && kind.name == name;
  });
  return found == kKinds.end() ? nullptr : found;
}

// Takes the size of `value` from `budget`; false once it is used up or `value` nests too deeply.
bool fits(const json& value, std::size_t& budget, std::size_t depth) {
  constexpr std::size_t kNodeBytes = 4;
  const std::size_t own =
      kNodeBytes + (value.is_string() ? value.get_ref<const std::string&>().size() : 0);
  if (depth == 0 || own > budget) {
    return false;
  }
  budget -= own;
  if (value.is_array()) {
    return std::all_of(value.begin(), value.end(),
                       [&](const json& item) { return fits(item, budget, depth - 1); });
  }
  if (!value.is_object()) {
    return true;
  }
  for (const auto& member : value.get_ref<const json::object_t&>()) {
    if (member.first.size() > budget) {
      return false;
    }
    budget -= member.first.size();
    if (!fits(member.second, budget, depth - 1)) {
      return false;
    }
  }
  return true;
}

// What an issue calls the object: as much of "Kind/namespace/name" as can be read.
std::string name_for_issues(const std::string& kind, const json& value) {
  const auto text = [&](const char* key) {
    const json* metadata = value.contains("metadata") ? &value["metadata"] : nullptr;
    const bool usable = metadata != nullptr && metadata->is_object() && metadata->contains(key) &&
                        (*metadata)[key].is_string();
    return usable ? cut_shown((*metadata)[key].get_ref<const std::string&>()) : std::string();
  };
  const std::string name = text("name");
  const std::string space = text("namespace");
  if (name.empty()) {
    return kind;
  }
  const bool cluster_scoped = kind == "Namespace" || kind == "Node";
  return cluster_scoped ? kind + "/" + name
                        : fmt::format("{}/{}/{}", kind, space.empty() ? "default" : space, name);
}

bool has_error(const std::vector<Issue>& issues) {
  return std::any_of(issues.begin(), issues.end(),
                     [](const Issue& issue) { return !issue.warning; });
}

class Decoder {
 public:
  Decoded run(const json& value) {
    std::vector<Issue> issues;
    const Field root(&value, "", issues);
    const std::string kind = value.is_object() ? root.at("kind").text() : std::string();
    constexpr std::string_view kList = "List";
    if (kind.ends_with(kList) && value.contains("items")) {
      list_kind_ = kind.substr(0, kind.size() - kList.size());
      list_version_ = list_kind_.empty() ? std::string() : root.at("apiVersion").required_text();
      static_cast<void>(root.at("items").items());  // notes an issue if this is no list
      keep(issues, kind);
      const json& items = value["items"];
      for (std::size_t i = 0; items.is_array() && i < items.size(); ++i) {
        decode_one(items[i], fmt::format("/items/{}", i));
      }
    } else {
      decode_one(value, "");
    }
    return std::move(decoded_);
  }

 private:
  void decode_one(const json& value, const std::string& pointer) {
    std::vector<Issue> issues;
    const Field field(&value, pointer, issues);
    std::string name;
    if (!value.is_object()) {
      field.fail("must be a Kubernetes object");
    } else if (std::size_t budget = kMaxObjectBytes; !fits(value, budget, kMaxObjectDepth)) {
      field.fail(fmt::format("is larger than {} MiB or nested deeper than {}",
                             kMaxObjectBytes >> 20U, kMaxObjectDepth));
    } else {
      name = decode_kind(field, issues);
    }
    keep(issues, name);
  }

  // Returns what issues call the object.
  std::string decode_kind(const Field& field, const std::vector<Issue>& issues) {
    const Field kind_field = field.at("kind");
    const Field version_field = field.at("apiVersion");
    const bool in_list = !list_kind_.empty();
    const std::string kind =
        in_list && !kind_field.present() ? list_kind_ : kind_field.required_text();
    const std::string version =
        in_list && !version_field.present() ? list_version_ : version_field.required_text();
    std::string name = name_for_issues(cut_shown(kind), *field.value());
    if (has_error(issues)) {
      return name;
    }
    const Kind* known = find_kind(version, kind);
    if (known == nullptr) {
      kind_field.warn(cut_shown(version + " " + kind) + " is not read by Sidetrack; skipped");
    } else if (known->decode != nullptr) {
      Object object = known->decode(field);
      const auto* slice = std::get_if<EndpointSlice>(&object);
      if (slice != nullptr && slice->address_type == "FQDN") {
        field.at("addressType").warn("FQDN endpoints are not used; skipped");
      } else if (!has_error(issues)) {
        decoded_.objects.push_back(
            DecodedObject{.object = std::move(object), .pointer = field.pointer()});
      }
    }
    return name;
  }

  void keep(std::vector<Issue>& issues, const std::string& name) {
    for (Issue& issue : issues) {
      const bool first_error = !issue.warning && !error_kept_;
      if (decoded_.issues.size() < kMaxIssues || first_error) {
        error_kept_ = error_kept_ || !issue.warning;
        issue.object = name;
        decoded_.issues.push_back(std::move(issue));
      }
    }
    issues.clear();
  }

  Decoded decoded_;
  std::string list_kind_;  // "Pod" in a PodList; empty outside such a list
  std::string list_version_;
  bool error_kept_ = false;
};

std::string key_of(const Metadata& metadata) {
  return metadata.namespace_name.empty() ? metadata.name
                                         : metadata.namespace_name + "/" + metadata.name;
}

const char* kind_of(const Namespace&) {
  return "Namespace";
}
const char* kind_of(const Pod&) {
  return "Pod";
}
const char* kind_of(const Service&) {
  return "Service";
}
const char* kind_of(const EndpointSlice&) {
  return "EndpointSlice";
}
const char* kind_of(const Node&) {
  return "Node";
}

auto& map_for(ObjectSet& set, const Namespace&) {
  return set.namespaces;
}
auto& map_for(ObjectSet& set, const Pod&) {
  return set.pods;
}
auto& map_for(ObjectSet& set, const Service&) {
  return set.services;
}
auto& map_for(ObjectSet& set, const EndpointSlice&) {
  return set.endpoint_slices;
}
auto& map_for(ObjectSet& set, const Node&) {
  return set.nodes;
}

}  // namespace

std::string object_name(const Object& object) {
  return std::visit(
      [](const auto& value) {
        return fmt::format("{}/{}", kind_of(value), key_of(value.metadata));
      },
      object);
}

bool put_object(ObjectSet& set, Object object) {
  return std::visit(
      [&](auto& value) {
        auto& map = map_for(set, value);
        std::string key = key_of(value.metadata);
        return map.insert_or_assign(std::move(key), std::move(value)).second;
      },
      object);
}

Decoded decode(const json& value) {
  return Decoder().run(value);
}

}  // namespace sidetrack::kube
