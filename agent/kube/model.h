// SPDX-License-Identifier: Apache-2.0
// The Kubernetes objects that Sidetrack reads, reduced to the fields it uses. Plain data without
// invariants; every source (files, API watch) produces these, the resolver and the service compiler
// consume them. No I/O.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace sidetrack::kube {

struct Metadata {
  std::string name;
  std::string namespace_name;  // empty for cluster-scoped kinds; "default" where a namespaced
                               // object names none
  std::string uid;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;
  bool operator==(const Metadata&) const = default;
};

struct Namespace {
  Metadata metadata;
  bool operator==(const Namespace&) const = default;
};

struct Pod {
  Metadata metadata;
  std::string node_name;  // spec.nodeName
  bool host_network = false;
  std::string phase;                   // status.phase, may be empty (files)
  std::vector<std::string> addresses;  // status.podIPs (or status.podIP)
  std::vector<std::uint16_t>
      container_ports;         // spec.containers[].ports[].containerPort, hostPort not included
  std::string runtime_class;   // spec.runtimeClassName
  std::string mesh_container;  // the container (also an init container) that is a mesh's proxy, by
                               // its name; empty = none
  std::string owner;           // "Kind/name" of the controller, empty if none
  bool operator==(const Pod&) const = default;
};

struct ServicePort {
  std::string name;
  std::string protocol = "TCP";
  std::uint16_t port = 0;
  bool operator==(const ServicePort&) const = default;
};

struct Service {
  Metadata metadata;
  std::string type = "ClusterIP";
  std::vector<std::string> cluster_addresses;  // spec.clusterIPs (or clusterIP); "None" is left out
  std::vector<ServicePort> ports;
  bool client_ip_affinity = false;           // spec.sessionAffinity: ClientIP
  std::uint32_t affinity_timeout_s = 10800;  // spec.sessionAffinityConfig.clientIP.timeoutSeconds
  bool internal_traffic_local = false;       // spec.internalTrafficPolicy: Local
  bool topology_hints = false;               // annotation topology-mode / trafficDistribution set
  bool operator==(const Service&) const = default;
};

struct Endpoint {
  std::vector<std::string> addresses;
  bool ready = true;         // conditions.ready (nil = true)
  bool serving = true;       // conditions.serving (nil = ready)
  bool terminating = false;  // conditions.terminating
  std::string node_name;
  std::string zone;
  std::vector<std::string> hint_zones;  // hints.forZones[].name
  bool operator==(const Endpoint&) const = default;
};

struct EndpointPort {
  std::string name;
  std::string protocol = "TCP";
  std::uint16_t port = 0;
  bool operator==(const EndpointPort&) const = default;
};

struct EndpointSlice {
  Metadata metadata;
  std::string service_name;  // label kubernetes.io/service-name
  std::string address_type;  // IPv4, IPv6 (FQDN slices are skipped)
  std::vector<EndpointPort> ports;
  std::vector<Endpoint> endpoints;
  bool operator==(const EndpointSlice&) const = default;
};

struct Node {
  Metadata metadata;  // labels: topology.kubernetes.io/zone
  bool operator==(const Node&) const = default;
};

// Everything a source knows, keyed "namespace/name" (cluster-scoped: "name").
struct ObjectSet {
  std::map<std::string, Namespace> namespaces;
  std::map<std::string, Pod> pods;
  std::map<std::string, Service> services;
  std::map<std::string, EndpointSlice> endpoint_slices;
  std::map<std::string, Node> nodes;
  bool operator==(const ObjectSet&) const = default;
};

// Keys of an ObjectSet: of those that came, went or are others.
struct ObjectKeys {
  std::set<std::string> namespaces, pods, services, endpoint_slices, nodes;
  bool operator==(const ObjectKeys&) const = default;
};

// Something in an object or a file that could not be used; shown by `sidetrackctl status` and
// `doctor`, counted in metrics.
struct Problem {
  std::string object;      // "Namespace/shop", "Pod/shop/web-0", "file /objects/a.yaml"
  std::string key;         // annotation or field, "line 12" for a file that does not parse
  std::string value;       // the offending text, cut to 200 bytes
  std::string reason;      // what is wrong and what to do
  bool warning = false;    // used all the same (host bits in a CIDR)
  bool of_source = false;  // of the API server or the cache, not of what an object says
  auto operator<=>(const Problem&) const = default;
};

}  // namespace sidetrack::kube
