// SPDX-License-Identifier: Apache-2.0
// What a runtime asks of the plugin: the environment and stdin of one invocation, checked and
// bounded (CNI spec 0.3.0 to 1.1.0). Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cni/json/json.h"
#include "sidetrack/result.h"
#include "sidetrack/wire/cni.h"

namespace sidetrack::cni::plugin {

inline constexpr std::size_t kMaxInputBytes = std::size_t{1} << 20;

enum class Command : std::uint8_t { kAdd, kDel, kCheck, kGc, kStatus, kVersion };

// The CNI_* variables, "" where unset.
struct Environment {
  std::string command;
  std::string container_id;
  std::string netns;
  std::string ifname;
  std::string args;
};

// Who the container belongs to, from CNI_ARGS; no name: no pod of Kubernetes.
struct Pod {
  std::string namespace_name;
  std::string name;
  std::string uid;
  [[nodiscard]] bool known() const { return !namespace_name.empty() && !name.empty(); }
};

// Errors name the variable.
[[nodiscard]] Result<Command> read_command(const Environment& environment);
[[nodiscard]] Result<wire::cni::AttachmentId> read_attachment(const Environment& environment);
// Keys that are unknown or not valid are left out.
[[nodiscard]] Pod read_pod(std::string_view args);

// Our keys of the configuration.
struct Config {
  std::string socket = "/run/sidetrack/cni.sock";
  std::uint32_t timeout_ms = wire::cni::kDefaultTimeoutMs;
  bool deny = false;                                                   // onAgentDown: deny
  std::uint32_t deny_for_seconds = wire::cni::kDefaultDenyForSeconds;  // 0: for ever
  std::string enrolled_namespaces;                                     // file; empty: none
  std::string log_file;                                                // empty: none
  std::string own_namespace;                                           // empty: unknown
  bool status_checks_agent = false;
  // Keys that are not ours and look like one of ours, in words; empty: none.
  std::string misspelt;
};
// kInvalid names the key, what it may be and what it is.
[[nodiscard]] Result<Config> read_config(std::string_view input, const json::Object& object);

// The result of the plugin before us, as it has to be printed: unchanged, but for a cniVersion if
// it states none. kNotFound: there is none.
[[nodiscard]] Result<std::string> read_previous_result(std::string_view input,
                                                       const json::Object& object,
                                                       std::string_view version);

// The addresses that it gave to the pod, without their prefix length; at most 64.
[[nodiscard]] std::vector<std::string> read_addresses(std::string_view previous_result);

// The attachments that exist (GC). kNotFound: the runtime does not say, as cnitool does not.
[[nodiscard]] Result<std::vector<wire::cni::AttachmentId>> read_valid_attachments(
    std::string_view input, const json::Object& object);

}  // namespace sidetrack::cni::plugin
