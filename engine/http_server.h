// SPDX-License-Identifier: Apache-2.0
// A small HTTP server for GET requests: each path has a function that makes its answer. On the
// io_context's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>

#include "engine/options.h"
#include "sidetrack/result.h"

namespace sidetrack::engine {

struct HttpAnswer {
  unsigned status = 200;
  std::string body;
};
using HttpHandler = std::function<HttpAnswer()>;

class HttpServer {
 public:
  HttpServer(boost::asio::io_context& context, HttpAddress address,
             std::map<std::string, HttpHandler> handlers);
  ~HttpServer();
  // Listens, as soon as the address is free: the engine that is being replaced may still have it.
  // kInvalid, kPermission: it never can, the address is none of this host, say.
  [[nodiscard]] Result<void> start();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sidetrack::engine
