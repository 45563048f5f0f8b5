// SPDX-License-Identifier: Apache-2.0
// The messages between the agent and an engine (docs/engine-protocol.md): plain structs, one
// variant, a JSON codec. A message is the body of one frame (framing.h); `welcome`, `slots` and
// `pod` carry one file descriptor on it. The engine speaks first (hello). Ports and numbers are
// host order; addresses are st_addr here and text on the wire. Thread rule: plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sidetrack/abi/fast.h"
#include "sidetrack/abi/types.h"
#include "sidetrack/result.h"
#include "sidetrack/wire/limits.h"

namespace sidetrack::wire {

inline constexpr std::uint32_t kEngineProtocolVersion = 1;
inline constexpr std::size_t kMaxPorts = 65535;    // of `reserved_ports`
inline constexpr std::size_t kMaxListeners = 256;  // per family in `listening`
inline constexpr std::size_t kMaxEndpoints =
    20000;  // per route: the longest addresses still fit a frame
inline constexpr std::uint32_t kMaxLinks = ST_MAX_SLOTS / 2;

// An address (IPv4 as ::ffff:a.b.c.d) and a TCP port.
struct Endpoint {
  st_addr address{};
  std::uint16_t port = 0;
};
[[nodiscard]] bool operator==(const Endpoint& a, const Endpoint& b);
// By address bytes, then port.
[[nodiscard]] bool operator<(const Endpoint& a, const Endpoint& b);

struct Listener {
  std::uint16_t port = 0;
  std::uint64_t cookie = 0;  // SO_COOKIE
  bool operator==(const Listener&) const = default;
};

// Engine to agent.

// The first message of a session, within 2 s.
struct Hello {
  std::uint32_t version = kEngineProtocolVersion;
  std::string build;
  std::int64_t pid = 0;
  bool operator==(const Hello&) const = default;
};
// The pod's listeners accept. Answers a `pod` or `reopen` by its request id; 0: nobody asked
// (reopened by itself).
struct Listening {
  std::uint64_t request_id = 0;
  std::uint64_t netns_cookie = 0;
  std::vector<Listener> v4;
  std::vector<Listener> v6;  // empty: the pod has no IPv6 loopback
  bool operator==(const Listening&) const = default;
};
// A `pod` or `reopen` that did not work; the agent asks again later.
struct Failed {
  std::uint64_t request_id = 0;
  std::uint64_t netns_cookie = 0;
  std::string reason;
  bool operator==(const Failed&) const = default;
};
// The engine accepts no new pods and exits when its connections are done.
struct Draining {
  bool operator==(const Draining&) const = default;
};
// Every second.
struct Stats {
  std::uint64_t connections = 0;  // open now
  std::uint64_t accepted_total = 0;
  std::uint64_t refused_total = 0;
  std::uint64_t files_used = 0;
  std::uint64_t files_limit = 0;
  bool operator==(const Stats&) const = default;
};

// These two sockets are the legs of one connection that is relayed byte for byte. Only after
// `slots`, once what was forwarded so far is in the slots 2 * index (from the client) and 2 * index
// + 1. Saying it again is no error.
struct Link {
  std::uint64_t client_cookie = 0;  // SO_COOKIE of the accepted socket
  std::uint64_t server_cookie = 0;  // of the upstream socket
  std::uint32_t index = 0;          // below kMaxLinks, one of the engine's own: see abi/fast.h
  bool operator==(const Link&) const = default;
};

// Agent to engine.

// Answers hello. Descriptor: the map st_engines, to be mapped into memory for the heartbeat in cell
// `slot`.
struct Welcome {
  std::uint32_t version = kEngineProtocolVersion;
  std::uint16_t slot = 0;
  std::uint64_t cgroup_id = 0;  // the engine refuses to start outside of this cgroup
  std::uint16_t listener_port_low = 0;
  std::uint16_t listener_port_high = 0;
  std::uint16_t listeners_per_pod = 0;
  bool operator==(const Welcome&) const = default;
};
// Follows welcome where connections may skip the engine. Descriptor: the map st_slots.
struct Slots {
  bool operator==(const Slots&) const = default;
};
// Answers hello; the agent closes the session after it. The engine prints the reason and exits
// with 1.
struct Refused {
  std::string reason;
  bool operator==(const Refused&) const = default;
};
// What follows, to SnapshotEnd, is everything: the engine then drops each pod and route that was
// neither sent nor kept.
struct SnapshotBegin {
  bool operator==(const SnapshotBegin&) const = default;
};
struct SnapshotEnd {
  bool operator==(const SnapshotEnd&) const = default;
};
// Serve this pod, or replace what is known of it: one that the engine serves already keeps its
// listeners, unless they are on a port that is now reserved. Descriptor: its netns. Always
// answered, by Listening or Failed.
struct Pod {
  std::uint64_t request_id = 0;
  std::uint64_t netns_cookie = 0;
  std::string namespace_name;
  std::string name;
  std::vector<std::uint16_t> reserved_ports;  // never to be listened on
  bool operator==(const Pod&) const = default;
};
// If the engine has this pod, it goes on with it, though no `pod` came in this snapshot (it
// follows); else nothing.
struct Keep {
  std::uint64_t netns_cookie = 0;
  bool operator==(const Keep&) const = default;
};
// Close the pod's listeners and its netns; with `cut` its connections too, else they go on.
struct Remove {
  std::uint64_t netns_cookie = 0;
  bool cut = false;
  bool operator==(const Remove&) const = default;
};
// Open the pod's listeners again, on other ports where needed. Answered by Listening or Failed.
struct Reopen {
  std::uint64_t request_id = 0;
  std::uint64_t netns_cookie = 0;
  bool operator==(const Reopen&) const = default;
};
// Replaces the route of this front. No endpoints: refuse.
struct Route {
  Endpoint front;
  std::string service;  // "namespace/name:port"
  std::vector<Endpoint> endpoints;
  std::uint32_t affinity_timeout_s = 0;  // 0 = none
  bool operator==(const Route&) const = default;
};
struct RouteRemove {
  Endpoint front;
  bool operator==(const RouteRemove&) const = default;
};

using EngineMessage =
    std::variant<Hello, Listening, Failed, Draining, Stats, Link, Welcome, Slots, Refused,
                 SnapshotBegin, SnapshotEnd, Pod, Keep, Remove, Reopen, Route, RouteRemove>;

// The name of a message's kind on the wire: "hello".
[[nodiscard]] std::string_view kind_of(const EngineMessage& message);

// How many descriptors the frame of this message carries; any other number is an error.
[[nodiscard]] std::size_t descriptors_of(const EngineMessage& message);

// The frame body. Reasons are cut, invalid UTF-8 is left out. kInvalid: a name or list over its
// limit.
[[nodiscard]] Result<std::string> encode(const EngineMessage& message);

// Unknown fields are ignored. kUnsupported: an unknown kind (skip the frame); kInvalid: everything
// else (end the session).
[[nodiscard]] Result<EngineMessage> decode(std::string_view body);

}  // namespace sidetrack::wire
