// SPDX-License-Identifier: Apache-2.0
#include "agent/sys/unix_server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "sidetrack/log/log.h"

namespace sidetrack::sys {
namespace {

// As many plugins as a node starts pods at once may wait here for the loop.
constexpr int kBacklog = 256;

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return make_error(ErrorCode::kInvalid,
                      "socket path '" + path + "' is empty or longer than 107 bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

Result<UniqueFd> open_socket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) {
    return errno_error("socket", errno);
  }
  return fd;
}

// Only ECONNREFUSED proves that no process holds the socket: EAGAIN is a full backlog.
Result<void> remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    return errno == ENOENT ? Result<void>() : errno_error("stat " + path, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return make_error(ErrorCode::kExists, path + " exists and is not a socket");
  }
  auto probe = open_socket();
  if (!probe) {
    return probe.error();
  }
  if (::connect(probe->get(), generic(address), sizeof address) == 0 || errno != ECONNREFUSED) {
    return make_error(ErrorCode::kBusy, "another process listens on " + path);
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return errno_error("remove " + path, errno);
  }
  return {};
}

Result<UniqueFd> listen_at(const std::string& path) {
  const auto address = address_of(path);
  if (!address) {
    return address.error();
  }
  ST_TRY(remove_stale(path, *address));
  auto socket = open_socket();
  if (!socket) {
    return socket.error();
  }
  // The file gets the mode of the socket's inode less the umask (net/unix/af_unix.c,
  // unix_bind_bsd): set before bind() it is never wider than 0600; chmod() afterwards undoes a
  // umask that took too much.
  if (::fchmod(socket->get(), 0600) != 0) {
    return errno_error("chmod " + path, errno);
  }
  if (::bind(socket->get(), generic(*address), sizeof *address) != 0) {
    return errno_error("bind " + path, errno);
  }
  if (::chmod(path.c_str(), 0600) != 0) {
    return errno_error("chmod " + path, errno);
  }
  if (::listen(socket->get(), kBacklog) != 0) {
    return errno_error("listen " + path, errno);
  }
  return std::move(*socket);
}

Result<PeerCredentials> peer_credentials(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return errno_error("SO_PEERCRED", errno);
  }
  return PeerCredentials{.pid = credentials.pid, .uid = credentials.uid};
}

}  // namespace

UnixServer::UnixServer(boost::asio::io_context& context, std::string component, OnPeer on_peer)
    : component_(component),
      on_peer_(std::move(on_peer)),
      loop_(context, std::move(component),
            [this](UniqueFd socket) { return on_connection(std::move(socket)); }) {}

UnixServer::~UnixServer() {
  stop();
}

Result<void> UnixServer::listen(const std::string& path) {
  auto socket = listen_at(path);
  ST_TRY(socket);
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    return errno_error("stat " + path, errno);
  }
  path_ = path;
  inode_ = status.st_ino;
  return loop_.start(std::move(*socket));
}

void UnixServer::stop() {
  loop_.stop();
  struct stat status {};
  const ino_t ours = std::exchange(inode_, 0);
  if (ours != 0 && ::lstat(path_.c_str(), &status) == 0 && status.st_ino == ours) {
    ::unlink(path_.c_str());
  }
}

Accepting UnixServer::on_connection(UniqueFd socket) {
  const auto peer = peer_credentials(socket.get());
  if (!peer || (peer->uid != 0 && peer->uid != ::geteuid())) {
    log_event(LogLevel::kWarn, component_, "peer_rejected",
              {{"uid", peer ? static_cast<std::int64_t>(peer->uid) : -1}});
    return Accepting::kMore;
  }
  return on_peer_(std::move(socket), *peer);
}

}  // namespace sidetrack::sys
