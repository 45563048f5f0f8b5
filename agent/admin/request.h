// SPDX-License-Identifier: Apache-2.0
// One HTTP request and its answer as values, and the type of what turns one into the other.
// Independent of the HTTP library and of the transport. No I/O.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace sidetrack::admin {

struct Request {
  std::string method;  // "GET"
  std::string path;    // decoded, without the query
  std::map<std::string, std::string> query;
  std::string body;

  // The query parameter, or "".
  [[nodiscard]] std::string parameter(const std::string& name) const;
};

struct Response {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::string allow;  // for 405: the methods that would do
};

// Runs on the io_context's thread and must not block.
using Handler = std::function<Response(const Request&)>;

// Undoes %XX (and '+' if `plus_is_space`); nothing if the text is malformed or holds a zero byte.
[[nodiscard]] std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space);

// Splits "/v1/pods?namespace=shop" into path and query; nothing if it is malformed.
[[nodiscard]] std::optional<Request> parse_target(std::string_view target);

// The text as a query value: everything but unreserved characters as %XX.
[[nodiscard]] std::string percent_encode(std::string_view text);

}  // namespace sidetrack::admin
