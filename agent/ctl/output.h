// SPDX-License-Identifier: Apache-2.0
// JSON as it is printed: indented, one line, or YAML. Pure.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

namespace sidetrack::ctl {

enum class Format { kTable, kJson, kYaml };

// For kJson and kYaml; ends with a newline.
[[nodiscard]] std::string serialise(const nlohmann::json& value, Format format);
// One line of JSON, or one YAML document ("---" first): for output that goes on and on.
[[nodiscard]] std::string serialise_item(const nlohmann::json& value, Format format);

}  // namespace sidetrack::ctl
