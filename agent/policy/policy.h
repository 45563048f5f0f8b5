// SPDX-License-Identifier: Apache-2.0
// The resolver: Kubernetes objects in, what the kernel should enforce out. Pure: no system calls,
// threads or clocks; the last good values are a value that the caller keeps. Rules: docs/policy.md.
// Ports are host order; addresses are st_addr.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/kube/model.h"
#include "agent/policy/port_set.h"
#include "sidetrack/abi/types.h"
#include "sidetrack/decide.h"
#include "sidetrack/result.h"

namespace sidetrack::policy {

// Of one merged policy. There is no limit on ports: every port from 1 to 65,535 may be listed.
inline constexpr std::size_t kMaxCidrs = 10000;

// "8500,8600-8700". Errors (kInvalid) name the offending item.
[[nodiscard]] Result<PortSet> parse_ports(std::string_view text);

// One item of a CIDR list: a prefix and the ports it is limited to.
struct CidrRule {
  st_addr address{};        // canonical: host bits cleared
  std::uint8_t prefix = 0;  // 0..128, IPv4 prefixes have 96 added
  PortRange ports;          // all of them, unless the item names some
  std::string text;         // as written, for `policy` and `explain`
};

struct ParsedCidrs {
  std::vector<CidrRule> rules;        // in the order of the text, without repeats
  std::vector<std::string> warnings;  // host bits that were cleared
};
// "10.9.0.0/16,fd00::/8,10.1.2.3,10.0.0.0/8:443,[fd00::/8]:8000-8100". Errors (kInvalid) name the
// offending item.
[[nodiscard]] Result<ParsedCidrs> parse_cidrs(std::string_view text);
// Whether the rule's prefix holds the address. A prefix written as IPv6 never holds an IPv4
// address, not even ::/0.
[[nodiscard]] bool covers(const CidrRule& rule, const st_addr& address);

// Parses "10.1.2.3" or "fd00::1" (also v4-mapped).
[[nodiscard]] Result<st_addr> parse_address(std::string_view text);
// Those of the texts that are addresses, in their order.
[[nodiscard]] std::vector<st_addr> parse_addresses(const std::vector<std::string>& texts);
// "10.1.2.3", "fd00::1".
[[nodiscard]] std::string format_address(const st_addr& address);
struct SocketAddress {
  st_addr address{};
  std::uint16_t port = 0;  // host order
};
// "10.1.2.3:80", "[fd00::1]:80", port 1 to 65535. kInvalid: what is meant instead; "fd00::1:80"
// could be an address without a port.
[[nodiscard]] Result<SocketAddress> parse_endpoint(std::string_view text);
// "10.1.2.3:80", "[fd00::1]:80".
[[nodiscard]] std::string format_endpoint(const st_addr& address, std::uint16_t port);
// "10.1.0.0/16", "fd00::/8"; `prefix` as in CidrRule.
[[nodiscard]] std::string format_cidr(const st_addr& address, std::uint8_t prefix);

// Where a value comes from: object "Namespace/shop", "Pod/shop/web-0", "node", "default"; key the
// annotation, label or option.
struct Origin {
  std::string object;
  std::string key;
  std::string value;  // the value in use: the last good one, if the present one does not parse
};

// What a list says is shared (never null), because pods of one namespace or one Deployment say the
// same.
struct PortList {
  std::shared_ptr<const PortSet> ports;
  Origin origin;
};
struct CidrList {
  std::shared_ptr<const std::vector<CidrRule>> rules;
  Origin origin;
};

// The merged rules of one pod. Two pods with the same rules share what the kernel stores: see
// `compile`.
struct Rules {
  std::vector<PortList>
      exclude_ports;  // union: one entry per level and key that sets it; pod, namespace, node
  std::vector<CidrList> exclude_cidrs;
  std::optional<PortList> include_ports;  // nearest level
  std::optional<CidrList> include_cidrs;
};

// The node's lists as text (options); nullopt = not set.
struct NodeLists {
  std::optional<std::string> exclude_ports, exclude_cidrs, include_ports, include_cidrs;
};
// Rules with origin "node" and the option's name as key. kInvalid names option and item. Host bits
// go to `warnings`.
[[nodiscard]] Result<Rules> parse_node_rules(const NodeLists& lists,
                                             std::vector<std::string>& warnings);

// One row of the LPM trie. The longest match alone decides, because the ports of all covering
// prefixes are folded in.
struct CompiledCidr {
  st_addr address{};
  std::uint8_t prefix = 0;
  std::uint32_t exclude_set = ST_PORT_SET_NONE;
  std::uint32_t include_set = ST_PORT_SET_NONE;
};
// What the maps hold for one set of rules; equal rules compile to equal values, whatever their
// origins. A set id is ST_PORT_SET_NONE, ST_PORT_SET_ALL or 1 + the index into `sets`; each set is
// there once and used.
struct CompiledPolicy {
  std::uint32_t exclude_ports = ST_PORT_SET_NONE;  // of every destination
  std::uint32_t include_ports = ST_PORT_SET_NONE;
  bool has_include = false;
  std::vector<CompiledCidr> cidrs;  // sorted by (prefix, address), unique
  std::vector<PortSet> sets;

  // Whether the set with this id has the port.
  [[nodiscard]] bool set_has(std::uint32_t set, std::uint16_t port) const;
  // What the kernel's lookups find for one destination.
  [[nodiscard]] st_rules look_up(const st_addr& address, std::uint16_t port) const;
  // The content as bytes: equal exactly when the policies are (for the index of stored policies).
  [[nodiscard]] std::string fingerprint() const;
  [[nodiscard]] bool empty() const;  // redirects everything: stored as policy id 0
  bool operator==(const CompiledPolicy& other) const;
};
// kFull: more than kMaxCidrs different prefixes, or more port pages than the kernel's map has.
[[nodiscard]] Result<CompiledPolicy> compile(const Rules& rules);

enum class Compat { kIstio, kLinkerd, kKuma };

// The node's own settings.
struct NodeSettings {
  std::string node_name;
  bool any_node =
      false;  // source `files`: a pod without nodeName is ours too, and may name its netns
  std::string own_namespace;  // the agent's and engine's own; empty = none
  Rules rules;                // the node-wide lists, origins "node"
  std::set<Compat> compat;
};

enum class PodState { kEnrol, kSkipped };

// One pod of this node as it should be.
struct PodIntent {
  std::string namespace_name;
  std::string name;
  std::string netns_path;     // annotation sidetrack.io/netns (files); else filled in by the agent
  std::string netns_problem;  // why the agent has none
  bool runtime_unseen = false;  // whether its sockets are the node's is not known yet
  std::string runtime_problem;  // why the agent cannot know; empty: it will
  std::vector<st_addr> addresses;
  std::vector<std::uint16_t> container_ports;
  st_mode mode = ST_MODE_DISABLED;
  st_fast_path fast_path = ST_FAST_PATH_AUTO;
  st_on_engine_loss on_engine_loss = ST_ON_ENGINE_LOSS_OPEN;
  st_tuning tuning{};
  Origin mode_origin, fast_path_origin, on_engine_loss_origin, tuning_origin;
  Rules rules;
  std::shared_ptr<const CompiledPolicy> compiled;  // never null; shared by pods with the same lists
  PodState state = PodState::kSkipped;
  // For kSkipped: host_network, own_namespace, has_sidecar, finished, mode_disabled. For kEnrol
  // when bad input made the mode passthrough: invalid_mode, invalid_annotation, unknown_key,
  // policy_too_large. Else empty.
  std::string reason;
  std::string reason_detail;
};

// The last good value of every key of every object: given back to the next resolve().
struct LastGood {
  std::map<std::string, std::string>
      values;  // "Namespace/shop|sidetrack.io/exclude-outbound-ports" -> text
};

struct Resolution {
  std::vector<PodIntent> pods;          // of this node, sorted by namespace, name
  std::vector<kube::Problem> problems;  // sorted, unique
  LastGood last_good;
};
[[nodiscard]] Resolution resolve(const kube::ObjectSet& objects, const NodeSettings& node,
                                 const LastGood& last_good);

// Whether a pod of this namespace that says nothing itself is enrolled: all that the plugin knows
// while it cannot ask the agent.
[[nodiscard]] bool enrols_pods(const kube::Metadata& of_namespace);

// Why `policy` and `explain` say what they say: the rule of `rules` that decides, or nothing. The
// value is the matching item of the list; for ST_REASON_NOT_INCLUDED the whole list.
[[nodiscard]] std::optional<Origin> deciding_rule(const Rules& rules, st_reason reason,
                                                  const st_addr& address, std::uint16_t port);

}  // namespace sidetrack::policy
