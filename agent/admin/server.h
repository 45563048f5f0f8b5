// SPDX-License-Identifier: Apache-2.0
// The admin socket: the API on a unix socket for root only. Not for the network. One thread, the
// io_context's. The socket file goes when the server does.
#pragma once

#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>

#include "agent/admin/session.h"
#include "sidetrack/result.h"

namespace sidetrack::admin {

class AdminServer {
 public:
  // Listens at `path`. Errors: see sys/unix_server.h.
  [[nodiscard]] static Result<std::unique_ptr<AdminServer>> listen(boost::asio::io_context& context,
                                                                   const std::string& path,
                                                                   Handler handler,
                                                                   Limits limits = {});
  ~AdminServer();
  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;

 private:
  struct Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sidetrack::admin
