// SPDX-License-Identifier: Apache-2.0
// Log lines of the agent and the engine: one event with fields, key=value or JSON, to stderr, times
// in UTC. The one place where values are escaped: what objects say ends up in them. Any thread.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace sidetrack {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarn, kError };
enum class LogFormat : std::uint8_t { kText, kJson };

struct LogField {
  LogField(std::string_view name, std::string_view text) : key(name), value(text) {}
  template <std::integral T>
  LogField(std::string_view name, T number) : key(name), value(text_of(number)) {}
  std::string_view key;
  std::string value;

 private:
  static std::string text_of(bool is) { return is ? "true" : "false"; }
  template <std::integral T>
  static std::string text_of(T number) {
    return std::to_string(number);
  }
};

// As --log-level has it: debug, info, warn, error. Nothing: another word.
[[nodiscard]] std::optional<LogLevel> log_level_of(std::string_view name);

// Call once, before any other thread logs.
void start_log(LogLevel level, LogFormat format);
void set_log_level(LogLevel level);

void log_event(LogLevel level, std::string_view component, std::string_view event,
               std::initializer_list<LogField> fields = {});

}  // namespace sidetrack
