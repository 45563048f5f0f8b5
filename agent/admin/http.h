// SPDX-License-Identifier: Apache-2.0
// The TCP endpoint of --http: /metrics, /healthz and /readyz, read only. No API: that is the admin
// socket's. One thread, the io_context's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>

#include "agent/admin/session.h"
#include "agent/admin/views.h"
#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::admin {

// `metrics` returns the exposition text. `views` must outlive the handler.
[[nodiscard]] Handler make_health(Views& views, std::function<std::string()> metrics);

class HttpServer {
 public:
  // kInvalid: not a text that listen() takes.
  [[nodiscard]] static Result<void> check(const std::string& address);
  // A socket that listens there already; connections wait. Errors as of listen().
  [[nodiscard]] static Result<UniqueFd> bind(const std::string& address);
  // Listens at "127.0.0.1:15880" or "[::1]:15880". kInvalid: not such a text, or an
  // address that is not this node's; kBusy: the port is taken.
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> listen(boost::asio::io_context& context,
                                                                  const std::string& address,
                                                                  Handler handler,
                                                                  Limits limits = {});
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] std::uint16_t port() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sidetrack::admin
