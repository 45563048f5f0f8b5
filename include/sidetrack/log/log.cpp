// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/log/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

namespace sidetrack {
namespace {

LogFormat g_format = LogFormat::kText;

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

bool is_plain(char c) {
  return c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\';
}

// A value with anything but plain ASCII is quoted as in JSON, so that no terminal and no reader of
// lines takes a part of it for something else.
std::string quoted(const std::string& value) {
  if (!value.empty() && std::all_of(value.begin(), value.end(), is_plain)) {
    return value;
  }
  return nlohmann::json(value).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

std::string text_line(std::string_view component, std::string_view event,
                      std::initializer_list<LogField> fields) {
  std::string line = fmt::format("component={} event={}", component, event);
  for (const LogField& field : fields) {
    line += fmt::format(" {}={}", field.key, quoted(field.value));
  }
  return line;
}

// The part after time and level; the pattern gives the braces.
std::string json_line(std::string_view component, std::string_view event,
                      std::initializer_list<LogField> fields) {
  nlohmann::ordered_json object;
  object["component"] = component;
  object["event"] = event;
  for (const LogField& field : fields) {
    object[std::string(field.key)] = field.value;
  }
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(1);
}

}  // namespace

std::optional<LogLevel> log_level_of(std::string_view name) {
  static constexpr std::pair<std::string_view, LogLevel> kLevels[] = {{"debug", LogLevel::kDebug},
                                                                      {"info", LogLevel::kInfo},
                                                                      {"warn", LogLevel::kWarn},
                                                                      {"error", LogLevel::kError}};
  for (const auto& [word, level] : kLevels) {
    if (word == name) {
      return level;
    }
  }
  return std::nullopt;
}

void start_log(LogLevel level, LogFormat format) {
  g_format = format;
  auto logger = std::make_shared<spdlog::logger>("sidetrack",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(level_of(level));
  logger->set_pattern(format == LogFormat::kText
                          ? "time=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v"
                          : R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v)",
                      spdlog::pattern_time_type::utc);
  spdlog::set_default_logger(std::move(logger));
}

void set_log_level(LogLevel level) {
  spdlog::set_level(level_of(level));
}

void log_event(LogLevel level, std::string_view component, std::string_view event,
               std::initializer_list<LogField> fields) {
  const spdlog::level::level_enum spdlog_level = level_of(level);
  if (spdlog::should_log(spdlog_level)) {
    spdlog::log(spdlog_level, "{}",
                g_format == LogFormat::kText ? text_line(component, event, fields)
                                             : json_line(component, event, fields));
  }
}

}  // namespace sidetrack
