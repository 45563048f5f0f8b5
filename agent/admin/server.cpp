// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/server.h"

#include <sys/socket.h>

#include <utility>

#include "agent/sys/unix_server.h"

namespace sidetrack::admin {

struct AdminServer::Impl {
  Impl(boost::asio::io_context& context, Handler handler, Limits limits)
      : sessions(context, AF_UNIX, std::move(handler), limits),
        server(context, "admin", [this](UniqueFd socket, const sys::PeerCredentials& /*peer*/) {
          sessions.start(std::move(socket));
          return sys::Accepting::kMore;
        }) {}

  Sessions sessions;
  sys::UnixServer server;
};

Result<std::unique_ptr<AdminServer>> AdminServer::listen(boost::asio::io_context& context,
                                                         const std::string& path, Handler handler,
                                                         Limits limits) {
  auto impl = std::make_unique<Impl>(context, std::move(handler), limits);
  if (auto listening = impl->server.listen(path); !listening) {
    return listening.error().within("admin socket");
  }
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
}

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AdminServer::~AdminServer() = default;

}  // namespace sidetrack::admin
