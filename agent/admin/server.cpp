// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include <boost/asio/local/stream_protocol.hpp>

#include "agent/admin/accept_loop.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::admin {
namespace {

using Local = boost::asio::local::stream_protocol;

Result<UniqueFd> unix_socket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return errno_error("make a unix socket", errno);
  }
  return fd;
}

Result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return make_error(ErrorCode::kInvalid,
                      "socket path " + path + ": empty or longer than 107 bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

// Makes room at `path`: only a socket that nobody answers at is removed.
Result<void> remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    const int error = errno;
    return error == ENOENT ? Result<void>() : Result<void>(errno_error("look at " + path, error));
  }
  if (!S_ISSOCK(info.st_mode)) {
    return make_error(ErrorCode::kExists,
                      path + " is there and is not a socket; it was left alone");
  }
  auto probe = unix_socket();
  if (!probe) {
    return probe.error();
  }
  if (::connect(probe->get(), generic(address), sizeof(address)) == 0 || errno != ECONNREFUSED) {
    return make_error(ErrorCode::kBusy, path + " is in use by another process");
  }
  if (::unlink(path.c_str()) != 0) {
    return errno_error("remove the stale socket " + path, errno);
  }
  return {};
}

Result<UniqueFd> listen_at(const std::string& path) {
  const auto address = unix_address(path);
  ST_TRY(address);
  ST_TRY(remove_stale(path, *address));
  auto fd = unix_socket();
  if (!fd) {
    return fd.error();
  }
  // The mode of the descriptor becomes that of the file: there is no moment in which others could
  // connect.
  if (::fchmod(fd->get(), 0600) != 0 ||
      ::bind(fd->get(), generic(*address), sizeof(*address)) != 0) {
    return errno_error("bind " + path, errno);
  }
  if (::chmod(path.c_str(), 0600) != 0 || ::listen(fd->get(), 64) != 0) {
    return errno_error("listen at " + path, errno);
  }
  return fd;
}

// Root, or the user that we run as (which is root, except in tests).
bool is_allowed(int fd) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         (peer.uid == 0 || peer.uid == ::geteuid());
}

}  // namespace

struct AdminServer::Impl {
  std::string path;
  ino_t inode = 0;
  std::unique_ptr<Sessions> sessions;
  std::shared_ptr<AcceptLoop<Local>> loop;  // shared with its pending accept
};

Result<std::unique_ptr<AdminServer>> AdminServer::listen(boost::asio::io_context& context,
                                                         const std::string& path, Handler handler,
                                                         Limits limits) {
  auto fd = listen_at(path);
  if (!fd) {
    return fd.error();
  }
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return errno_error("look at " + path, errno);
  }
  Local::acceptor acceptor(context);
  boost::system::error_code error;
  acceptor.assign(Local(), fd->get(), error);
  if (error) {
    return make_error(ErrorCode::kInternal, "listen at " + path + ": " + error.message());
  }
  static_cast<void>(fd->release());
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->inode = info.st_ino;
  impl->sessions = std::make_unique<Sessions>(std::move(handler), limits);
  impl->loop = std::make_shared<AcceptLoop<Local>>(
      std::move(acceptor), [&sessions = *impl->sessions](Local::socket socket) {
        if (is_allowed(socket.native_handle())) {
          sessions.start(std::move(socket));
        }
      });
  impl->loop->next();
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
}

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

AdminServer::~AdminServer() {
  impl_->loop->stop();
  // A newer agent may have put its own socket at the same path.
  struct stat info {};
  if (::stat(impl_->path.c_str(), &info) == 0 && info.st_ino == impl_->inode) {
    ::unlink(impl_->path.c_str());
  }
}

}  // namespace sidetrack::admin
