// SPDX-License-Identifier: Apache-2.0
// Builders of Kubernetes objects and rules for the tests of agent/policy. Values only.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "agent/policy/policy.h"

namespace sidetrack::policy::testing {

using Text = std::map<std::string, std::string>;

inline constexpr const char* kMode = "sidetrack.io/mode";
inline constexpr const char* kExcludePorts = "sidetrack.io/exclude-outbound-ports";
inline constexpr const char* kExcludeCidrs = "sidetrack.io/exclude-outbound-cidrs";
inline constexpr const char* kIncludePorts = "sidetrack.io/include-outbound-ports";
inline constexpr const char* kIncludeCidrs = "sidetrack.io/include-outbound-cidrs";

inline st_addr address(const std::string& text) {
  return parse_address(text).value();
}

inline PortList port_list(const std::string& text, Origin origin = {}) {
  origin.value = text;
  return {std::make_shared<const PortSet>(parse_ports(text).value()), std::move(origin)};
}

inline CidrList cidr_list(const std::string& text, Origin origin = {}) {
  origin.value = text;
  return {std::make_shared<const std::vector<CidrRule>>(parse_cidrs(text).value().rules),
          std::move(origin)};
}

// A node "n1" with namespace "shop" and pod "shop/web".
struct Cluster {
  kube::ObjectSet objects;
  NodeSettings node;
  LastGood last_good;

  Cluster() : Cluster(Text{{kMode, "redirect"}}) {}
  explicit Cluster(const Text& namespace_labels) {
    node.node_name = "n1";
    shop().metadata.name = "shop";
    shop().metadata.labels = namespace_labels;
    add_pod("shop", "web");
  }
  kube::Namespace& shop() { return objects.namespaces["shop"]; }
  kube::Pod& web() { return objects.pods["shop/web"]; }
  kube::Pod& add_pod(const std::string& namespace_name, const std::string& name) {
    kube::Pod& pod = objects.pods[namespace_name + "/" + name];
    pod.metadata.name = name;
    pod.metadata.namespace_name = namespace_name;
    pod.node_name = "n1";
    return pod;
  }
  // Resolves and keeps the last good values, as the agent does.
  Resolution resolve() {
    Resolution resolution = policy::resolve(objects, node, last_good);
    last_good = resolution.last_good;
    return resolution;
  }
  PodIntent resolve_web() { return resolve().pods.at(0); }
};

// The step 6 verdict on a destination under what the pod's policy compiled to.
inline st_reason verdict(const CompiledPolicy& policy, const std::string& destination,
                         std::uint16_t port) {
  const st_rules rules = policy.look_up(address(destination), port);
  const st_reason reason = st_decide_rules(&rules);
  return reason == ST_REASON_COUNT ? ST_REASON_REDIRECTED : reason;
}

}  // namespace sidetrack::policy::testing
