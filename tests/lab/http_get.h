// SPDX-License-Identifier: Apache-2.0
// One HTTP/1.1 request over a unix or TCP socket, with a deadline: how tests ask the agent's admin
// socket and --http port. Thread rule: any thread; TCP goes through the calling thread's network
// namespace.
#pragma once

#include <cstdint>
#include <string>

#include "sidetrack/result.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {

struct HttpAnswer {
  unsigned status = 0;
  std::string body;
};

struct HttpRequest {
  std::string target{"/"};
  std::string method{"GET"};
  std::string body{};
  milliseconds within = milliseconds(5000);
};

// Errors: what connecting, sending or reading says; any status is an answer.
Result<HttpAnswer> http_over_unix(const std::string& socket_path, const HttpRequest& request);
Result<HttpAnswer> http_over_tcp(const std::string& address, std::uint16_t port,
                                 const HttpRequest& request);

}  // namespace sidetrack::lab
