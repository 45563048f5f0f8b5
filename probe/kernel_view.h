// SPDX-License-Identifier: Apache-2.0
// What the agent of this node says about one pod, from the kernel's maps and counters: the admin
// API, read only.
#pragma once

#include <cstdint>
#include <string>

#include "sidetrack/result.h"

namespace sidetrack::probe {

struct Explanation {
  std::string verdict;
  std::string reason;
  bool agrees_with_kernel = false;
};

// The answers' fields; kInvalid if a body is not what docs/api.md says.
[[nodiscard]] Result<Explanation> read_explanation(const std::string& body);
// Connections of a namespace that were decided for `reason`; 0 if there is no such row.
[[nodiscard]] Result<std::uint64_t> read_count(const std::string& body,
                                               const std::string& namespace_name,
                                               const std::string& reason);
// `path` of the flow whose client's end is `source` and that went to `destination`; empty if there
// is none (yet).
[[nodiscard]] Result<std::string> read_path(const std::string& body, const std::string& source,
                                            const std::string& destination);

}  // namespace sidetrack::probe
