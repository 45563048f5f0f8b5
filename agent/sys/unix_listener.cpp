// SPDX-License-Identifier: Apache-2.0
#include "agent/sys/unix_listener.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

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
    return make_error(ErrorCode::kExists, "another process listens on " + path);
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return errno_error("remove " + path, errno);
  }
  return {};
}

}  // namespace

Result<UniqueFd> listen_unix(const std::string& path) {
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

Result<UniqueFd> accept_unix(int listener) {
  UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.valid()) {
    return fd;
  }
  const int saved = errno;
  if (saved == EAGAIN || saved == EWOULDBLOCK || saved == EINTR || saved == ECONNABORTED) {
    return UniqueFd();
  }
  return errno_error("accept", saved);
}

Result<PeerCredentials> peer_credentials(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return errno_error("SO_PEERCRED", errno);
  }
  return PeerCredentials{.pid = credentials.pid, .uid = credentials.uid};
}

}  // namespace sidetrack::sys
