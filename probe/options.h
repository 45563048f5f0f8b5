// SPDX-License-Identifier: Apache-2.0
// The command line of sidetrack-probe. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::probe {

// "redirected=10.96.0.10:80": a connection to that address must be decided so, for that reason.
struct Expectation {
  std::string reason;
  std::string host;
  std::uint16_t port = 0;
};

enum class Command : std::uint8_t { kServe, kCheck, kHelp, kVersion };

struct Options {
  Command command = Command::kHelp;
  std::vector<std::uint16_t> ports;       // serve
  std::string admin_socket;               // check
  std::string namespace_name;             // check
  std::string pod;                        // check
  std::vector<Expectation> expectations;  // check
  std::chrono::seconds patience{60};      // check
};

[[nodiscard]] std::string usage();

// `arguments` without the program's name. kInvalid with a message for people otherwise.
[[nodiscard]] Result<Options> parse_options(const std::vector<std::string>& arguments);

// "redirected=web.shop:80", "excluded_port=10.96.0.10:8500", "passthrough=[fd00::1]:80".
[[nodiscard]] Result<Expectation> parse_expectation(std::string_view text);

}  // namespace sidetrack::probe
