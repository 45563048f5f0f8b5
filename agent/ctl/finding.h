// SPDX-License-Identifier: Apache-2.0
// What `doctor` finds: each with a severity and what to do about it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/ctl/format.h"

namespace sidetrack::ctl {

enum class Severity : std::uint8_t { kOk, kHint, kWarning, kError };

struct Finding {
  Severity severity = Severity::kOk;
  std::string group;  // kernel, agent, programs, engine, pods, maps, objects, node
  std::string what;
  std::string action;  // what to do; empty for kOk
};
using Findings = std::vector<Finding>;

[[nodiscard]] std::string severity_name(Severity severity);  // ok, hint, warning, error
// No error and no warning among them.
[[nodiscard]] bool is_healthy(const Findings& findings);
// {"healthy", "findings": [{"severity", "group", "what", "action"}]}
[[nodiscard]] nlohmann::json to_json(const Findings& findings);
// Grouped in the order in which the groups first appear.
[[nodiscard]] std::string render_findings(const Findings& findings, const Painter& painter);

}  // namespace sidetrack::ctl
