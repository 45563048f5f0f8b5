// SPDX-License-Identifier: Apache-2.0
// The versions of the CNI spec that the plugin speaks, oldest first.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

namespace sidetrack::cni {

inline constexpr std::array<std::string_view, 5> kVersions{"0.3.0", "0.3.1", "0.4.0", "1.0.0",
                                                           "1.1.0"};

[[nodiscard]] constexpr bool is_supported(std::string_view version) {
  return std::find(kVersions.begin(), kVersions.end(), version) != kVersions.end();
}

// Is the supported `version` that one or a later one?
[[nodiscard]] constexpr bool is_at_least(std::string_view version, std::string_view other) {
  return std::find(kVersions.begin(), kVersions.end(), version) >=
         std::find(kVersions.begin(), kVersions.end(), other);
}

}  // namespace sidetrack::cni
