// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/wire/engine.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "sidetrack/wire/codec.h"

namespace sidetrack::wire {
namespace {

constexpr std::array<unsigned char, 12> kMappedPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

std::string address_text(const st_addr& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const bool v4 = std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), address.bytes);
  ::inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? address.bytes + 12 : address.bytes, text.data(),
              text.size());
  return text.data();
}

std::optional<st_addr> parse_address(const std::string& text) {
  st_addr address{};
  if (::inet_pton(AF_INET6, text.c_str(), address.bytes) == 1) {
    return address;
  }
  std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), address.bytes);
  if (::inet_pton(AF_INET, text.c_str(), address.bytes + 12) == 1) {
    return address;
  }
  return std::nullopt;
}

// The number of a link.
struct LinkIndex {
  std::uint32_t& number;
};

constexpr codec::Kinds<EngineMessage> kKinds{
    "hello",   "listening", "failed",  "draining",       "stats",        "link",
    "welcome", "slots",     "refused", "snapshot_begin", "snapshot_end", "pod",
    "keep",    "remove",    "reopen",  "route",          "route_remove"};

}  // namespace

template <>
struct codec::Item<LinkIndex> {
  static std::string refusal(const LinkIndex& index) {
    return index.number < kMaxLinks ? "" : "is no link: " + std::to_string(index.number);
  }
  static json write(const LinkIndex& index) { return index.number; }
  static bool read(const json& value, const LinkIndex& out) {
    return Item<std::uint32_t>::read(value, out.number) && out.number < kMaxLinks;
  }
};

template <>
struct codec::Item<Listener> {
  static std::string refusal(const Listener& /*listener*/) { return {}; }
  static json write(const Listener& listener) {
    return {{"port", listener.port}, {"cookie", listener.cookie}};
  }
  static bool read(const json& value, Listener& out) {
    if (!value.is_object()) {
      return false;
    }
    const auto port = value.find("port");
    const auto cookie = value.find("cookie");
    return port != value.end() && cookie != value.end() &&
           Item<std::uint16_t>::read(*port, out.port) &&
           Item<std::uint64_t>::read(*cookie, out.cookie);
  }
};

template <>
struct codec::Item<Endpoint> {
  static std::string refusal(const Endpoint& /*endpoint*/) { return {}; }
  static json write(const Endpoint& endpoint) {
    return json::array({address_text(endpoint.address), endpoint.port});
  }
  static bool read(const json& value, Endpoint& out) {
    std::string text;
    if (!value.is_array() || value.size() != 2 || !Item<std::string>::read(value[0], text) ||
        !Item<std::uint16_t>::read(value[1], out.port)) {
      return false;
    }
    const auto address = parse_address(text);
    out.address = address.value_or(st_addr{});
    return address.has_value();
  }
};

// One list of fields per message serves both directions: `visit` is a codec::Writer or a Reader.
template <typename V>
static void fields(V& visit, Hello& m) {
  visit("version", m.version);
  visit("build", m.build);
  visit("pid", m.pid);
}
template <typename V>
static void fields(V& visit, Listening& m) {
  visit("request_id", m.request_id);
  visit("netns_cookie", m.netns_cookie);
  visit("v4", m.v4, kMaxListeners);
  visit("v6", m.v6, kMaxListeners);
}
template <typename V>
static void fields(V& visit, Failed& m) {
  visit("request_id", m.request_id);
  visit("netns_cookie", m.netns_cookie);
  visit("reason", codec::Reason{m.reason});
}
template <typename V>
static void fields(V& /*visit*/, Draining& /*m*/) {}
template <typename V>
static void fields(V& visit, Stats& m) {
  visit("connections", m.connections);
  visit("accepted_total", m.accepted_total);
  visit("refused_total", m.refused_total);
  visit("files_used", m.files_used);
  visit("files_limit", m.files_limit);
}
template <typename V>
static void fields(V& visit, Link& m) {
  visit("client_cookie", m.client_cookie);
  visit("server_cookie", m.server_cookie);
  visit("index", LinkIndex{m.index});
}
template <typename V>
static void fields(V& visit, Welcome& m) {
  visit("version", m.version);
  visit("slot", m.slot);
  visit("cgroup_id", m.cgroup_id);
  visit("listener_port_low", m.listener_port_low);
  visit("listener_port_high", m.listener_port_high);
  visit("listeners_per_pod", m.listeners_per_pod);
}
template <typename V>
static void fields(V& /*visit*/, Slots& /*m*/) {}
template <typename V>
static void fields(V& visit, Refused& m) {
  visit("reason", codec::Reason{m.reason});
}
template <typename V>
static void fields(V& /*visit*/, SnapshotBegin& /*m*/) {}
template <typename V>
static void fields(V& /*visit*/, SnapshotEnd& /*m*/) {}
template <typename V>
static void fields(V& visit, Pod& m) {
  visit("request_id", m.request_id);
  visit("netns_cookie", m.netns_cookie);
  visit("namespace", m.namespace_name);
  visit("name", m.name);
  visit("reserved_ports", m.reserved_ports, kMaxPorts);
}
template <typename V>
static void fields(V& visit, Keep& m) {
  visit("netns_cookie", m.netns_cookie);
}
template <typename V>
static void fields(V& visit, Remove& m) {
  visit("netns_cookie", m.netns_cookie);
  visit("cut", m.cut);
}
template <typename V>
static void fields(V& visit, Reopen& m) {
  visit("request_id", m.request_id);
  visit("netns_cookie", m.netns_cookie);
}
template <typename V>
static void fields(V& visit, Route& m) {
  visit("front", m.front);
  visit("service", m.service);
  visit("endpoints", m.endpoints, kMaxEndpoints);
  visit("affinity_timeout_s", m.affinity_timeout_s);
}
template <typename V>
static void fields(V& visit, RouteRemove& m) {
  visit("front", m.front);
}

bool operator==(const Endpoint& a, const Endpoint& b) {
  return a.port == b.port &&
         std::memcmp(a.address.bytes, b.address.bytes, sizeof a.address.bytes) == 0;
}

bool operator<(const Endpoint& a, const Endpoint& b) {
  const int order = std::memcmp(a.address.bytes, b.address.bytes, sizeof a.address.bytes);
  return order != 0 ? order < 0 : a.port < b.port;
}

std::string_view kind_of(const EngineMessage& message) {
  return kKinds.at(message.index());
}

std::size_t descriptors_of(const EngineMessage& message) {
  const bool one = std::holds_alternative<Welcome>(message) ||
                   std::holds_alternative<Slots>(message) || std::holds_alternative<Pod>(message);
  return one ? 1 : 0;
}

Result<std::string> encode(const EngineMessage& message) {
  return codec::encode(message, kKinds);
}

Result<EngineMessage> decode(std::string_view body) {
  return codec::decode<EngineMessage>(body, kKinds);
}

}  // namespace sidetrack::wire
