// SPDX-License-Identifier: Apache-2.0
// One HTTP request and its answer, over TCP or over a unix socket, within a deadline. Blocking.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "sidetrack/result.h"

namespace sidetrack::probe {

// What a connection to a server found out.
struct Exchange {
  std::string destination;  // ADDRESS:PORT that was connected to, after name resolution
  std::string source;       // ADDRESS:PORT of our own end
  std::string body;
};

// GET / of http://host:port on a connection of its own. kIo: no connection, or no answer with
// status 200.
[[nodiscard]] Result<Exchange> ask_server(const std::string& host, std::uint16_t port,
                                          std::chrono::milliseconds deadline);

// The first address of a name, as ADDRESS:PORT. kNotFound if it has none.
[[nodiscard]] Result<std::string> resolve(const std::string& host, std::uint16_t port);

// GET `target` on a unix socket. The body of an answer with status 200; kIo otherwise.
[[nodiscard]] Result<std::string> ask_socket(const std::string& path, const std::string& target,
                                             std::chrono::milliseconds deadline);

}  // namespace sidetrack::probe
