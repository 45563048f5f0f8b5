// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/wire/engine.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "sidetrack/wire/framing.h"

namespace sidetrack::wire {
namespace {

using nlohmann::json;

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

// A text that is cut when it is too long, where a name would be an error.
struct Reason {
  std::string& text;
};

// The number of a link.
struct LinkIndex {
  std::uint32_t& number;
};

// One list of fields per message serves both directions: `visit` is a Writer or a Reader.
template <typename V>
void fields(V& visit, Hello& m) {
  visit("version", m.version);
  visit("build", m.build);
  visit("pid", m.pid);
}
template <typename V>
void fields(V& visit, Listening& m) {
  visit("request_id", m.request_id);
  visit("netns_cookie", m.netns_cookie);
  visit("v4", m.v4, kMaxListeners);
  visit("v6", m.v6, kMaxListeners);
}
template <typename V>
void fields(V& visit, Failed& m) {
  visit("request_id", m.request_id);
  visit("netns_cookie", m.netns_cookie);
  visit("reason", Reason{m.reason});
}
template <typename V>
void fields(V& /*visit*/, Draining& /*m*/) {}
template <typename V>
void fields(V& visit, Stats& m) {
  visit("connections", m.connections);
  visit("accepted_total", m.accepted_total);
  visit("refused_total", m.refused_total);
  visit("files_used", m.files_used);
  visit("files_limit", m.files_limit);
}
template <typename V>
void fields(V& visit, Link& m) {
  visit("client_cookie", m.client_cookie);
  visit("server_cookie", m.server_cookie);
  visit("index", LinkIndex{m.index});
}
template <typename V>
void fields(V& visit, Welcome& m) {
  visit("version", m.version);
  visit("slot", m.slot);
  visit("cgroup_id", m.cgroup_id);
  visit("listener_port_low", m.listener_port_low);
  visit("listener_port_high", m.listener_port_high);
  visit("listeners_per_pod", m.listeners_per_pod);
}
template <typename V>
void fields(V& /*visit*/, Slots& /*m*/) {}
template <typename V>
void fields(V& visit, Refused& m) {
  visit("reason", Reason{m.reason});
}
template <typename V>
void fields(V& /*visit*/, SnapshotBegin& /*m*/) {}
template <typename V>
void fields(V& /*visit*/, SnapshotEnd& /*m*/) {}
template <typename V>
void fields(V& visit, Pod& m) {
  visit("request_id", m.request_id);
  visit("netns_cookie", m.netns_cookie);
  visit("namespace", m.namespace_name);
  visit("name", m.name);
  visit("reserved_ports", m.reserved_ports, kMaxPorts);
}
template <typename V>
void fields(V& visit, Keep& m) {
  visit("netns_cookie", m.netns_cookie);
}
template <typename V>
void fields(V& visit, Remove& m) {
  visit("netns_cookie", m.netns_cookie);
  visit("cut", m.cut);
}
template <typename V>
void fields(V& visit, Reopen& m) {
  visit("request_id", m.request_id);
  visit("netns_cookie", m.netns_cookie);
}
template <typename V>
void fields(V& visit, Route& m) {
  visit("front", m.front);
  visit("service", m.service);
  visit("endpoints", m.endpoints, kMaxEndpoints);
  visit("affinity_timeout_s", m.affinity_timeout_s);
}
template <typename V>
void fields(V& visit, RouteRemove& m) {
  visit("front", m.front);
}

constexpr std::array<std::string_view, std::variant_size_v<EngineMessage>> kKinds{
    "hello",   "listening", "failed",  "draining",       "stats",        "link",
    "welcome", "slots",     "refused", "snapshot_begin", "snapshot_end", "pod",
    "keep",    "remove",    "reopen",  "route",          "route_remove"};

class Writer {
 public:
  explicit Writer(std::string_view kind) : out_{{"type", kind}} {}

  template <std::integral T>
  void operator()(const char* name, const T& value) {
    out_[name] = value;
  }
  void operator()(const char* name, const std::string& value) {
    if (value.size() > kMaxText) {
      error_ = make_error(ErrorCode::kInvalid,
                          std::string("encode: ") + name + " is longer than 256 bytes");
    }
    out_[name] = value;
  }
  void operator()(const char* name, const LinkIndex& index) {
    if (index.number >= kMaxLinks) {
      error_ = make_error(ErrorCode::kInvalid,
                          "encode: there is no link " + std::to_string(index.number));
    }
    out_[name] = index.number;
  }
  void operator()(const char* name, const Reason& reason) {
    out_[name] = reason.text.substr(0, kMaxText);
  }
  void operator()(const char* name, const Endpoint& endpoint) { out_[name] = item(endpoint); }
  template <typename T>
  void operator()(const char* name, const std::vector<T>& list, std::size_t limit) {
    if (list.size() > limit) {
      error_ =
          make_error(ErrorCode::kInvalid, std::string("encode: ") + name + " has too many items");
      return;
    }
    json array = json::array();
    for (const T& value : list) {
      array.push_back(item(value));
    }
    out_[name] = std::move(array);
  }

  Result<std::string> finish() {
    if (error_) {
      return *error_;
    }
    std::string body = out_.dump(-1, ' ', false, json::error_handler_t::ignore);
    if (body.size() > kMaxFrameBytes) {
      return make_error(ErrorCode::kInvalid, "encode: message of " + std::to_string(body.size()) +
                                                 " bytes is over 1 MiB");
    }
    return body;
  }

 private:
  static json item(std::uint16_t port) { return port; }
  static json item(const Listener& listener) {
    return {{"port", listener.port}, {"cookie", listener.cookie}};
  }
  static json item(const Endpoint& endpoint) {
    return json::array({address_text(endpoint.address), endpoint.port});
  }

  json out_;
  std::optional<Error> error_;
};

class Reader {
 public:
  explicit Reader(const json& object) : object_(object) {}

  template <std::integral T>
  void operator()(const char* name, T& value) {
    take(name, value);
  }
  void operator()(const char* name, std::string& value) { take(name, value); }
  void operator()(const char* name, LinkIndex index) {
    take(name, index.number);
    if (index.number >= kMaxLinks) {
      fail(name);
    }
  }
  void operator()(const char* name, Reason reason) { take(name, reason.text); }
  void operator()(const char* name, Endpoint& endpoint) { take(name, endpoint); }
  template <typename T>
  void operator()(const char* name, std::vector<T>& list, std::size_t limit) {
    const auto found = object_.find(name);
    if (found == object_.end() || !found->is_array() || found->size() > limit) {
      fail(name);
      return;
    }
    list.resize(found->size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (!get((*found)[i], list[i])) {
        fail(name);
        return;
      }
    }
  }

  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  void fail(const char* name) {
    if (!error_) {
      error_ = make_error(ErrorCode::kInvalid,
                          std::string("field ") + name + " is missing or not valid");
    }
  }
  template <typename T>
  void take(const char* name, T& value) {
    const auto found = object_.find(name);
    if (found == object_.end() || !get(*found, value)) {
      fail(name);
    }
  }

  static bool get(const json& value, bool& out) {
    const auto* flag = value.get_ptr<const bool*>();
    out = flag != nullptr && *flag;
    return flag != nullptr;
  }
  // No field of the protocol is negative; "-1", "1.5" and what does not fit are rejected alike.
  template <std::integral T>
  static bool get(const json& value, T& out) {
    const auto* number = value.get_ptr<const std::uint64_t*>();
    if (number == nullptr || *number > static_cast<std::uint64_t>(std::numeric_limits<T>::max())) {
      return false;
    }
    out = static_cast<T>(*number);
    return true;
  }
  static bool get(const json& value, std::string& out) {
    const auto* text = value.get_ptr<const std::string*>();
    if (text == nullptr || text->size() > kMaxText) {
      return false;
    }
    out = *text;
    return true;
  }
  static bool get(const json& value, Listener& out) {
    if (!value.is_object()) {
      return false;
    }
    const auto port = value.find("port");
    const auto cookie = value.find("cookie");
    return port != value.end() && cookie != value.end() && get(*port, out.port) &&
           get(*cookie, out.cookie);
  }
  static bool get(const json& value, Endpoint& out) {
    std::string text;
    if (!value.is_array() || value.size() != 2 || !get(value[0], text) ||
        !get(value[1], out.port)) {
      return false;
    }
    const auto address = parse_address(text);
    out.address = address.value_or(st_addr{});
    return address.has_value();
  }

  const json& object_;
  std::optional<Error> error_;
};

template <std::size_t I = 0>
EngineMessage empty_message(std::size_t kind) {
  if constexpr (I + 1 < std::variant_size_v<EngineMessage>) {
    if (kind != I) {
      return empty_message<I + 1>(kind);
    }
  }
  return EngineMessage(std::in_place_index<I>);
}

}  // namespace

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
  Writer writer(kind_of(message));
  // `fields` takes both directions by reference; the Writer only reads.
  std::visit(
      [&writer](const auto& m) {
        fields(writer, const_cast<std::remove_cvref_t<decltype(m)>&>(m));
      },
      message);
  return writer.finish();
}

Result<EngineMessage> decode(std::string_view body) {
  const json object = json::parse(body, nullptr, false);
  if (!object.is_object()) {
    return make_error(ErrorCode::kInvalid, "decode: not a JSON object");
  }
  const auto type = object.find("type");
  const auto* text = type == object.end() ? nullptr : type->get_ptr<const std::string*>();
  if (text == nullptr) {
    return make_error(ErrorCode::kInvalid, "decode: field type is missing or not valid");
  }
  const auto* const kind = std::find(kKinds.begin(), kKinds.end(), *text);
  if (kind == kKinds.end()) {
    return make_error(ErrorCode::kUnsupported,
                      "decode: unknown message type " + text->substr(0, kMaxText));
  }
  EngineMessage message = empty_message(static_cast<std::size_t>(kind - kKinds.begin()));
  Reader reader(object);
  std::visit([&reader](auto& m) { fields(reader, m); }, message);
  if (reader.error()) {
    return reader.error()->within("decode " + *text);
  }
  return message;
}

}  // namespace sidetrack::wire
