// SPDX-License-Identifier: Apache-2.0
// A small HTTP server that says who it is and who asks: the other end of the checks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::probe {

// Answers every request on each of `ports`, all addresses of both families, with
// "NAME client=ADDRESS:PORT port=PORT\n". Runs until SIGTERM or SIGINT. kIo: a port cannot be had.
[[nodiscard]] Result<void> serve(const std::string& name, const std::vector<std::uint16_t>& ports);

// That answer.
[[nodiscard]] std::string answer(const std::string& name, const std::string& client,
                                 std::uint16_t port);
// Its client address, empty if `body` is no such answer.
[[nodiscard]] std::string client_of(const std::string& body);

}  // namespace sidetrack::probe
