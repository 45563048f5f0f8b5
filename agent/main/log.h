// SPDX-License-Identifier: Apache-2.0
// The agent's log: a line per event to stderr, times in UTC as in the engine's.
#pragma once

#include <spdlog/formatter.h>

#include <memory>
#include <string>

namespace sidetrack::agent {

// "text" (key=value) or "json" (one object per line, whatever bytes a message has).
[[nodiscard]] std::unique_ptr<spdlog::formatter> make_log_formatter(const std::string& format);

// Makes it spdlog's default.
void start_log(const std::string& level, const std::string& format);

}  // namespace sidetrack::agent
