// SPDX-License-Identifier: Apache-2.0
#include "cni/plugin/request.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "sidetrack/spelling.h"
#include "sidetrack/wire/limits.h"

namespace sidetrack::cni::plugin {
namespace {

constexpr std::array<std::pair<std::string_view, Command>, 6> kCommands{
    {{"ADD", Command::kAdd},
     {"DEL", Command::kDel},
     {"CHECK", Command::kCheck},
     {"GC", Command::kGc},
     {"STATUS", Command::kStatus},
     {"VERSION", Command::kVersion}}};

constexpr std::size_t kMaxInterfaceName = 15;  // IFNAMSIZ
constexpr std::size_t kMaxPath = 4096;
constexpr std::size_t kMaxKey = 64;  // none of ours is nearly as long

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// As the spec says: starts with an alphanumeric, then these, '_', '.', '-'.
bool is_container_id(std::string_view id) {
  return !id.empty() && id.size() <= wire::kMaxText && is_alphanumeric(id.front()) &&
         std::all_of(id.begin(), id.end(),
                     [](char c) { return is_alphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

bool is_interface_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxInterfaceName && name != "." && name != ".." &&
         std::none_of(name.begin(), name.end(), [](char c) {
           return c == '/' || c == ':' || (c >= 0 && c <= ' ') || c == 0x7f;
         });
}

// Names and ids of Kubernetes: DNS labels, uids.
bool is_name(std::string_view name) {
  return is_container_id(name);
}

// What stands there, on one line and not for pages.
std::string shown(std::string_view value) {
  constexpr std::size_t kMost = 80;
  std::string text(value.substr(0, kMost));
  std::replace_if(
      text.begin(), text.end(), [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; }, ' ');
  return text + (value.size() > kMost ? "..." : "");
}

// Reads our keys, and keeps the first thing that is wrong.
class Keys {
 public:
  Keys(std::string_view input, const json::Object& object) : input_(input), object_(object) {}

  void text(std::string_view key, std::string& out) {
    const json::Member* const member = find(key);
    if (member == nullptr) {
      return;
    }
    auto value = json::read_string(member->value.of(input_));
    if (!value || value->size() > kMaxPath) {
      fail(key, "a text");
      return;
    }
    out = std::move(*value);
  }
  void path(std::string_view key, std::string& out) {
    text(key, out);
    if (!out.empty() && out.front() != '/') {
      fail(key, "an absolute path");
    }
  }
  void flag(std::string_view key, bool& out) {
    if (const json::Member* const member = find(key); member != nullptr) {
      const std::string_view value = member->value.of(input_);
      out = value == "true";
      if (!out && value != "false") {
        fail(key, "true or false");
      }
    }
  }
  void number(std::string_view key, std::uint32_t low, std::uint32_t high, std::uint32_t& out) {
    const json::Member* const member = find(key);
    if (member == nullptr) {
      return;
    }
    const std::string_view value = member->value.of(input_);
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc{} || end != value.data() + value.size() || number < low ||
        number > high) {
      fail(key, "a number from " + std::to_string(low) + " to " + std::to_string(high));
      return;
    }
    out = number;
  }
  void fail(std::string_view key, std::string_view wanted) {
    const json::Member* const member = object_.find(key);
    if (!error_ && member != nullptr) {
      error_ =
          make_error(ErrorCode::kInvalid, std::string(key) + " has to be " + std::string(wanted) +
                                              ", not " + shown(member->value.of(input_)));
    }
  }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }
  // CNI lets a configuration have keys that a plugin does not know: an error would be too much.
  [[nodiscard]] std::string misspelt() const {
    std::string words;
    for (const json::Member& member : object_.members) {
      for (const std::string_view own : own_) {
        const std::string plain = spelling::plain(own);
        if (std::find(own_.begin(), own_.end(), member.key) == own_.end() &&
            spelling::distance(spelling::plain(member.key.substr(0, kMaxKey)), plain) <=
                spelling::most_apart(plain)) {
          words += (words.empty() ? "" : ", ") + shown(member.key) + " is not known (" +
                   std::string(own) + " is)";
        }
      }
    }
    return words;
  }

 private:
  const json::Member* find(std::string_view key) {
    own_.push_back(key);
    return object_.find(key);
  }

  std::string_view input_;
  const json::Object& object_;
  std::vector<std::string_view> own_;  // keys that were asked for
  std::optional<Error> error_;
};

// "10.1.2.3/24" is 10.1.2.3; none if it is no address.
std::optional<std::string> address_of(const std::string& prefix) {
  const std::string text = prefix.substr(0, prefix.find('/'));
  std::array<unsigned char, 16> bytes{};
  for (const int family : {AF_INET, AF_INET6}) {
    std::array<char, INET6_ADDRSTRLEN> canonical{};
    if (::inet_pton(family, text.c_str(), bytes.data()) == 1 &&
        ::inet_ntop(family, bytes.data(), canonical.data(), canonical.size()) != nullptr) {
      return canonical.data();
    }
  }
  return std::nullopt;
}

}  // namespace

Result<Command> read_command(const Environment& environment) {
  const auto* const found = std::find_if(
      kCommands.begin(), kCommands.end(),
      [&environment](const auto& known) { return known.first == environment.command; });
  if (found == kCommands.end()) {
    return make_error(ErrorCode::kInvalid,
                      environment.command.empty()
                          ? "CNI_COMMAND is not set: a container runtime calls this program"
                          : "CNI_COMMAND is " + environment.command.substr(0, wire::kMaxText) +
                                ", not ADD, DEL, CHECK, GC, STATUS or VERSION");
  }
  return found->second;
}

Result<wire::cni::AttachmentId> read_attachment(const Environment& environment) {
  if (!is_container_id(environment.container_id)) {
    return make_error(ErrorCode::kInvalid, "CNI_CONTAINERID is not set or not valid");
  }
  if (!is_interface_name(environment.ifname)) {
    return make_error(ErrorCode::kInvalid, "CNI_IFNAME is not set or not valid");
  }
  return wire::cni::AttachmentId{.container_id = environment.container_id,
                                 .ifname = environment.ifname};
}

Pod read_pod(std::string_view args) {
  Pod pod;
  const std::array<std::pair<std::string_view, std::string*>, 3> known{
      {{"K8S_POD_NAMESPACE", &pod.namespace_name},
       {"K8S_POD_NAME", &pod.name},
       {"K8S_POD_UID", &pod.uid}}};
  while (!args.empty()) {
    const std::string_view pair = args.substr(0, args.find(';'));
    args.remove_prefix(std::min(pair.size() + 1, args.size()));
    const std::string_view key = pair.substr(0, pair.find('='));
    const std::string_view value = pair.substr(std::min(key.size() + 1, pair.size()));
    for (const auto& [name, out] : known) {
      if (name == key && is_name(value)) {
        *out = value;
      }
    }
  }
  return pod;
}

Result<Config> read_config(std::string_view input, const json::Object& object) {
  Config config;
  Keys keys(input, object);
  std::string on_agent_down = "allow";
  keys.path("socket", config.socket);
  keys.number("timeoutMs", wire::cni::kMinTimeoutMs, wire::cni::kMaxTimeoutMs, config.timeout_ms);
  keys.text("onAgentDown", on_agent_down);
  keys.number("denyForSeconds", 0, wire::cni::kMaxDenyForSeconds, config.deny_for_seconds);
  keys.path("enrolledNamespaces", config.enrolled_namespaces);
  keys.path("logFile", config.log_file);
  keys.text("ownNamespace", config.own_namespace);
  keys.flag("statusChecksAgent", config.status_checks_agent);
  config.deny = on_agent_down == "deny";
  if (!config.deny && on_agent_down != "allow") {
    keys.fail("onAgentDown", "allow or deny");
  }
  if (keys.error()) {
    return *keys.error();
  }
  config.misspelt = keys.misspelt();
  return config;
}

Result<std::string> read_previous_result(std::string_view input, const json::Object& object,
                                         std::string_view version) {
  const json::Member* const member = object.find("prevResult");
  if (member == nullptr) {
    return make_error(ErrorCode::kNotFound, "no prevResult");
  }
  const std::string_view value = member->value.of(input);
  const auto result = json::read_object(value);
  if (!result) {
    return make_error(ErrorCode::kInvalid, "prevResult is no object");
  }
  std::string text(value);
  if (result->find("cniVersion") == nullptr) {
    text.insert(1,
                "\"cniVersion\":" + json::quoted(version) + (result->members.empty() ? "" : ","));
  }
  return text;
}

std::vector<std::string> read_addresses(std::string_view previous_result) {
  std::vector<std::string> addresses;
  const auto result = json::read_object(previous_result);
  const json::Member* const ips = result ? result->find("ips") : nullptr;
  if (ips == nullptr) {
    return addresses;
  }
  const std::string_view list = ips->value.of(previous_result);
  const auto array = json::read_array(list);
  for (const json::Span& element : array ? array->elements : std::vector<json::Span>{}) {
    const std::string_view item = element.of(list);
    const auto object = json::read_object(item);
    const auto text = object ? json::string_member(item, *object, "address") : std::nullopt;
    auto address = text ? address_of(*text) : std::nullopt;
    if (address && addresses.size() < wire::cni::kMaxAddresses) {
      addresses.push_back(std::move(*address));
    }
  }
  return addresses;
}

Result<std::vector<wire::cni::AttachmentId>> read_valid_attachments(std::string_view input,
                                                                    const json::Object& object) {
  const std::string key = "cni.dev/valid-attachments";
  const json::Member* const member = object.find(key);
  if (member == nullptr || member->value.of(input) == "null") {
    return make_error(ErrorCode::kNotFound, key + " is missing");
  }
  const std::string_view list = member->value.of(input);
  const auto array = json::read_array(list);
  if (!array || array->elements.size() > wire::cni::kMaxAttachments) {
    return make_error(ErrorCode::kInvalid, key + " is no array, or has more than " +
                                               std::to_string(wire::cni::kMaxAttachments) +
                                               " elements");
  }
  std::vector<wire::cni::AttachmentId> valid;
  for (const json::Span& element : array->elements) {
    const std::string_view item = element.of(list);
    const auto one = json::read_object(item);
    auto id = one ? json::string_member(item, *one, "containerID") : std::nullopt;
    auto ifname = one ? json::string_member(item, *one, "ifname") : std::nullopt;
    if (!id || !ifname || !is_container_id(*id) || !is_interface_name(*ifname)) {
      return make_error(ErrorCode::kInvalid,
                        key + " has an element without a valid containerID " + "and ifname");
    }
    valid.push_back({.container_id = std::move(*id), .ifname = std::move(*ifname)});
  }
  return valid;
}

}  // namespace sidetrack::cni::plugin
