// SPDX-License-Identifier: Apache-2.0
// The keys of ours that this room reads, and what is done with keys that look like ours but are
// not: misspelt ones, or a label's name on an annotation and the other way round. Private to this
// room; pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/policy/policy.h"

namespace sidetrack::policy {

// Labels.
inline constexpr const char* kModeKey = "sidetrack.io/mode";
inline constexpr const char* kFastPathKey = "sidetrack.io/fast-path";
inline constexpr const char* kOnEngineLossKey = "sidetrack.io/on-engine-loss";
// Annotations.
inline constexpr const char* kExcludePortsKey = "sidetrack.io/exclude-outbound-ports";
inline constexpr const char* kExcludeCidrsKey = "sidetrack.io/exclude-outbound-cidrs";
inline constexpr const char* kIncludePortsKey = "sidetrack.io/include-outbound-ports";
inline constexpr const char* kIncludeCidrsKey = "sidetrack.io/include-outbound-cidrs";
inline constexpr const char* kTcpKey = "sidetrack.io/tcp";
inline constexpr const char* kNetnsKey = "sidetrack.io/netns";

// Appends a problem for each label and annotation under our prefix that nothing reads. Returns the
// first that may have been meant to keep connections out of the engine (a list, or a mode other
// than redirect): the pods that it concerns are to be left alone.
[[nodiscard]] std::optional<Origin> check_keys(const std::string& object,
                                               const kube::Metadata& metadata,
                                               std::vector<kube::Problem>& problems);

}  // namespace sidetrack::policy
