// SPDX-License-Identifier: Apache-2.0
#include "engine/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

namespace sidetrack::engine {
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

// A value with blanks, quotes or control characters is quoted as in JSON.
std::string quoted(const std::string& value) {
  if (!value.empty() && value.find_first_of(" \"=\\\n\r\t") == std::string::npos) {
    return value;
  }
  return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string text_line(std::string_view event, std::initializer_list<LogField> fields) {
  std::string line = fmt::format("component=engine event={}", event);
  for (const LogField& field : fields) {
    line += fmt::format(" {}={}", field.key, quoted(field.value));
  }
  return line;
}

// The part after time and level; the pattern gives the braces.
std::string json_line(std::string_view event, std::initializer_list<LogField> fields) {
  nlohmann::ordered_json object;
  object["component"] = "engine";
  object["event"] = event;
  for (const LogField& field : fields) {
    object[std::string(field.key)] = field.value;
  }
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(1);
}

}  // namespace

void start_log(LogLevel level, LogFormat format) {
  g_format = format;
  auto logger = spdlog::stderr_logger_mt("engine");
  logger->set_level(level_of(level));
  logger->set_pattern(format == LogFormat::kText
                          ? "time=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v"
                          : R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v)",
                      spdlog::pattern_time_type::utc);
  spdlog::set_default_logger(std::move(logger));
}

void log_event(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  const spdlog::level::level_enum spdlog_level = level_of(level);
  if (spdlog::should_log(spdlog_level)) {
    spdlog::log(spdlog_level, "{}",
                g_format == LogFormat::kText ? text_line(event, fields) : json_line(event, fields));
  }
}

}  // namespace sidetrack::engine
