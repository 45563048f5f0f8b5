// SPDX-License-Identifier: Apache-2.0
// The command line and environment of sidetrack-engine. Pure but for reading what it is given.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sidetrack/log/log.h"
#include "sidetrack/result.h"

namespace sidetrack::engine {

struct HttpAddress {
  std::string address;
  std::uint16_t port = 0;
};

struct Options {
  enum class Command : std::uint8_t { kRun, kHelp, kVersion };
  Command command = Command::kRun;
  std::string state_dir = "/run/sidetrack";
  std::chrono::milliseconds drain{30'000};
  std::optional<HttpAddress> http;  // nothing = off
  unsigned threads = 1;
  std::size_t buffer_bytes = 256 * 1024;
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
};

[[nodiscard]] std::string usage();

// `arguments` without the program's name; `environment` as "NAME=value" of which SIDETRACK_* are
// read. kInvalid with a message for people otherwise.
[[nodiscard]] Result<Options> parse_options(const std::vector<std::string>& arguments,
                                            const std::vector<std::string>& environment);

// "256KiB", "1MiB", "65536".
[[nodiscard]] Result<std::size_t> parse_size(const std::string& text);
// "500ms", "30s", "2m".
[[nodiscard]] Result<std::chrono::milliseconds> parse_duration(const std::string& text);

}  // namespace sidetrack::engine
