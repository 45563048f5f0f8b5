// SPDX-License-Identifier: Apache-2.0
// The views as JSON: the field names are an API, described in docs/api.md and only added to. No
// I/O. Stateless.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/admin/views.h"

namespace sidetrack::admin {

[[nodiscard]] nlohmann::json to_json(const StatusView& view);
[[nodiscard]] nlohmann::json to_json(const PodView& view);
[[nodiscard]] nlohmann::json to_json(const PolicyView& view);
[[nodiscard]] nlohmann::json to_json(const ExplainView& view);
[[nodiscard]] nlohmann::json to_json(const FlowView& view);
[[nodiscard]] nlohmann::json to_json(const CounterView& view);
[[nodiscard]] nlohmann::json to_json(const WorkloadView& view);
[[nodiscard]] nlohmann::json to_json(const FlowPage& page);  // {"flows", "next_sequence"}
[[nodiscard]] nlohmann::json to_json(const std::vector<PodView>& pods);            // {"pods"}
[[nodiscard]] nlohmann::json to_json(const std::vector<CounterView>& counters);    // {"counters"}
[[nodiscard]] nlohmann::json to_json(const std::vector<WorkloadView>& workloads);  // {"workloads"}
// {"error": {"code", "message"}}; the code is the ErrorCode in snake_case.
[[nodiscard]] nlohmann::json to_json(const Error& error);

// "not_found", "invalid", ...
[[nodiscard]] std::string code_name(ErrorCode code);

// One line of JSON; bytes that are not UTF-8 are replaced, never an exception.
[[nodiscard]] std::string dump(const nlohmann::json& json);

}  // namespace sidetrack::admin
