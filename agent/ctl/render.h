// SPDX-License-Identifier: Apache-2.0
// The agent's answers as text for people. Pure; fields that are missing (an older agent) show as
// empty.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/ctl/format.h"

namespace sidetrack::ctl {

[[nodiscard]] std::string render_status(const nlohmann::json& status, const Painter& painter,
                                        double now);
[[nodiscard]] std::string render_pods(const nlohmann::json& answer, const Painter& painter);
[[nodiscard]] std::string render_policy(const nlohmann::json& policy, const Painter& painter);
[[nodiscard]] std::string render_explain(const nlohmann::json& explain, const Painter& painter);
[[nodiscard]] std::string render_counters(const nlohmann::json& answer, const Painter& painter);
[[nodiscard]] std::string render_flows(const nlohmann::json& answer, const Painter& painter,
                                       double now);
[[nodiscard]] std::string render_workloads(const nlohmann::json& answer, const Painter& painter);
// The switch as the kernel has it.
struct Bypass {
  bool on = false;
  bool attached = false;  // some program of Sidetrack
  std::string pin_dir;    // as it was asked for; empty: the default
};
[[nodiscard]] std::string render_bypass(const Bypass& bypass, const Painter& painter);
// For -f: columns of fixed width.
[[nodiscard]] std::string flow_header(const Painter& painter);
[[nodiscard]] std::string flow_line(const nlohmann::json& flow, const Painter& painter);

// The field, or the fallback if it is missing or of another kind.
[[nodiscard]] std::string text_of(const nlohmann::json& object, const char* key);
// What a problem of /v1/status is of: "Pod/shop/web sidetrack.io/mode", or the object alone.
[[nodiscard]] std::string subject_of(const nlohmann::json& problem);
// The problems of /v1/status, errors first.
[[nodiscard]] std::vector<const nlohmann::json*> problems_of(const nlohmann::json& status);
[[nodiscard]] std::uint64_t count_of(const nlohmann::json& object, const char* key);
[[nodiscard]] double seconds_of(const nlohmann::json& object, const char* key);
[[nodiscard]] bool flag_of(const nlohmann::json& object, const char* key);
// The list or object at the key; an empty one if it is missing.
[[nodiscard]] const nlohmann::json& list_of(const nlohmann::json& object, const char* key);

}  // namespace sidetrack::ctl
