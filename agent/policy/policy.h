// SPDX-License-Identifier: Apache-2.0
// The resolver: Kubernetes objects in, what the kernel should enforce out. Pure: no system calls, threads or clocks; the
// last good values are a value that the caller keeps. Rules: docs/policy.md. Ports are host order; addresses are st_addr.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/kube/model.h"
#include "sidetrack/abi/types.h"
#include "sidetrack/result.h"

namespace sidetrack::policy {

inline constexpr std::size_t kMaxPorts = 65535;
inline constexpr std::size_t kMaxCidrs = 10000;

// A set of TCP ports; bit 0 is never set.
using PortSet = std::bitset<65536>;

// "8500,8600-8700". Errors name the offending item.
[[nodiscard]] Result<PortSet> parse_ports(std::string_view text);

// One CIDR with the ports it is limited to (none = all ports).
struct CidrRule {
  st_addr address{};          // canonical: host bits cleared
  std::uint8_t prefix = 0;    // 0..128, IPv4 prefixes have 96 added
  std::optional<PortSet> ports;
  std::string text;           // as written, for `policy` and `explain`
};

struct ParsedCidrs {
  std::vector<CidrRule> rules;
  std::vector<std::string> warnings;  // host bits that were cleared
};
// "10.9.0.0/16,fd00::/8,10.1.2.3,10.0.0.0/8:443,[fd00::/8]:8000-8100".
[[nodiscard]] Result<ParsedCidrs> parse_cidrs(std::string_view text);

// Parses "10.1.2.3" or "fd00::1" (also v4-mapped).
[[nodiscard]] Result<st_addr> parse_address(std::string_view text);
// "10.1.2.3", "fd00::1".
[[nodiscard]] std::string format_address(const st_addr& address);
// "10.1.2.3:80", "[fd00::1]:80".
[[nodiscard]] std::string format_endpoint(const st_addr& address, std::uint16_t port);

// Where a value comes from: object "Namespace/shop", "Pod/shop/web-0", "node"; key the annotation, label or option.
struct Origin {
  std::string object;
  std::string key;
  std::string value;
};

struct PortList {
  PortSet ports;
  Origin origin;
};
struct CidrList {
  std::vector<CidrRule> rules;
  Origin origin;
};

// The merged rules of one pod. Two pods with the same rules share what the kernel stores: see `compile`.
struct Rules {
  std::vector<PortList> exclude_ports;    // union: one entry per level that sets it
  std::vector<CidrList> exclude_cidrs;
  std::optional<PortList> include_ports;  // nearest level
  std::optional<CidrList> include_cidrs;
};

// What the maps hold for one set of rules; equal rules compile to equal values, whatever their origins.
struct CompiledCidr {
  st_addr address{};
  std::uint8_t prefix = 0;
  PortSet exclude;  // covering prefixes folded in
  PortSet include;
};
struct CompiledPolicy {
  PortSet exclude_ports;
  PortSet include_ports;
  bool has_include = false;
  std::vector<CompiledCidr> cidrs;  // sorted by (prefix, address), unique
  // A digest of the content (for the index of stored policies); equal content, equal digest.
  [[nodiscard]] std::string fingerprint() const;
  [[nodiscard]] bool empty() const;  // redirects everything: stored as policy id 0
  bool operator==(const CompiledPolicy& other) const;
};
[[nodiscard]] CompiledPolicy compile(const Rules& rules);

enum class Compat { kIstio, kLinkerd, kKuma };

// The node's own settings.
struct NodeSettings {
  std::string node_name;
  bool any_node = false;  // source `files`: a pod without nodeName is ours too
  std::string own_namespace;  // the agent's and engine's own; empty = none
  Rules rules;            // the node-wide lists, origins "node"
  std::set<Compat> compat;
};

enum class PodState { kEnrol, kSkipped };

// One pod of this node as it should be.
struct PodIntent {
  std::string namespace_name;
  std::string name;
  std::string netns_path;  // annotation sidetrack.io/netns (files)
  std::vector<st_addr> addresses;
  std::vector<std::uint16_t> container_ports;
  st_mode mode = ST_MODE_DISABLED;
  st_fast_path fast_path = ST_FAST_PATH_AUTO;
  st_on_engine_loss on_engine_loss = ST_ON_ENGINE_LOSS_OPEN;
  Origin mode_origin, fast_path_origin, on_engine_loss_origin;
  Rules rules;
  CompiledPolicy compiled;
  PodState state = PodState::kSkipped;
  std::string reason;  // for kSkipped, and for a mode that bad input decided; snake_case word, e.g. "host_network", "mode_disabled"
  std::string reason_detail;
};

// The last good value of every key of every object: given back to the next resolve().
struct LastGood {
  std::map<std::string, std::string> values;  // "Namespace/shop|sidetrack.io/exclude-outbound-ports" -> text
};

struct Resolution {
  std::vector<PodIntent> pods;  // of this node, sorted by namespace, name
  std::vector<kube::Problem> problems;
  LastGood last_good;
};
[[nodiscard]] Resolution resolve(const kube::ObjectSet& objects, const NodeSettings& node, const LastGood& last_good);

// Why `policy` and `explain` say what they say: the rule of `rules` that decides, or nothing.
[[nodiscard]] std::optional<Origin> deciding_rule(const Rules& rules, st_reason reason, const st_addr& address,
                                                  std::uint16_t port);

}  // namespace sidetrack::policy
