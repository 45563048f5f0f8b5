// SPDX-License-Identifier: Apache-2.0
// Log lines of the engine: one event with fields, key=value or JSON, to stderr. Any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace sidetrack::engine {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarn, kError };
enum class LogFormat : std::uint8_t { kText, kJson };

struct LogField {
  std::string_view key;
  std::string value;
};

// Call once, before any other thread logs.
void start_log(LogLevel level, LogFormat format);

void log_event(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

}  // namespace sidetrack::engine
