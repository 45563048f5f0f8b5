// SPDX-License-Identifier: Apache-2.0
// A unix socket of the agent's: mode 0600 from its first moment, whatever the umask, and only
// root's processes and those of our own uid get through (SO_PEERCRED). Knows no protocol. One
// thread (the io_context's).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "agent/sys/accept_loop.h"

namespace sidetrack::sys {

struct PeerCredentials {
  std::int64_t pid = 0;
  uid_t uid = 0;
};

class UnixServer {
 public:
  // See AcceptLoop::OnConnection.
  using OnPeer = std::function<Accepting(UniqueFd, const PeerCredentials&)>;

  UnixServer(boost::asio::io_context& context, std::string component, OnPeer on_peer);
  ~UnixServer();
  UnixServer(const UnixServer&) = delete;
  UnixServer& operator=(const UnixServer&) = delete;

  // Replaces a socket file that nobody answers on. kBusy: somebody does; kExists: the file is no
  // socket; kInvalid: path too long.
  [[nodiscard]] Result<void> listen(const std::string& path);
  // As AcceptLoop's.
  void resume() { loop_.resume(); }
  // Removes the socket's file as well, unless another agent has put its own there.
  void stop();

 private:
  [[nodiscard]] Accepting on_connection(UniqueFd socket);

  std::string component_;
  OnPeer on_peer_;
  AcceptLoop loop_;
  std::string path_;
  ino_t inode_ = 0;  // of the file that we made; 0: none
};

}  // namespace sidetrack::sys
