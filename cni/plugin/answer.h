// SPDX-License-Identifier: Apache-2.0
// What the plugin prints: errors and the answer to VERSION, in the spec's form. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sidetrack::cni::plugin {

// The spec's error codes that the plugin uses by itself; those of the agent are in wire/cni.h.
inline constexpr std::uint32_t kIncompatibleVersion = 1;
inline constexpr std::uint32_t kBadEnvironment = 4;
inline constexpr std::uint32_t kInputOutput = 5;
inline constexpr std::uint32_t kUndecodable = 6;
inline constexpr std::uint32_t kBadConfiguration = 7;
inline constexpr std::uint32_t kBadNetns = 8;
inline constexpr std::uint32_t kInternal = 999;

struct Failure {
  std::uint32_t code = 0;
  std::string message;
  std::string details;  // what to do
};

[[nodiscard]] std::string error_text(std::string_view version, const Failure& failure);
[[nodiscard]] std::string version_text(std::string_view version);

}  // namespace sidetrack::cni::plugin
