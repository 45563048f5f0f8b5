// SPDX-License-Identifier: Apache-2.0
#include "engine/upstream.h"

#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace sidetrack::engine {
namespace {

std::uint8_t close_of(int error_number) {
  if (error_number == 0) {
    return ST_CLOSE_OPEN;
  }
  return error_number == ETIMEDOUT ? ST_CLOSE_TIMEOUT : ST_CLOSE_REFUSED;
}

void set_linger(int fd, const linger& value) {
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &value, sizeof value);
}

}  // namespace

int make_upstream_socket(int family) {
  const int fd = ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0) {
    return fd;
  }
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);  // as on listeners
  reset_on_close(fd);
  // The application's own keepalive is answered by us: ours, with the pod's sysctls, finds an
  // upstream that vanished.
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  return fd;
}

Opened open_upstream(const SocketAddress& destination) {
  const KernelAddress address = to_kernel(destination);
  const int fd = make_upstream_socket(address.get()->sa_family);
  if (fd < 0) {
    return Opened{.error_number = errno};
  }
  if (::connect(fd, address.get(), address.size) != 0 && errno != EINPROGRESS) {
    const int saved = errno;
    ::close(fd);
    return Opened{.error_number = saved};
  }
  return Opened{.fd = fd};
}

int socket_error(int fd) {
  int value = 0;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &size) == 0 ? value : errno;
}

std::uint32_t unacknowledged(int fd) {
  int value = 0;
  return ::ioctl(fd, SIOCOUTQ, &value) == 0 && value > 0 ? static_cast<std::uint32_t>(value) : 0;
}

void report(int accepted, bool accepted_v4, const SocketAddress& endpoint, int error_number) {
  st_report value{};
  value.endpoint = endpoint.address;
  value.port_be = htons(endpoint.port);
  value.close = close_of(error_number);
  // The kernel itself knows no such option: without our program this fails, and nobody misses it.
  ::setsockopt(accepted, accepted_v4 ? SOL_IP : SOL_IPV6, ST_SO_REPORT, &value, sizeof value);
}

void reset_on_close(int fd) {
  set_linger(fd, {.l_onoff = 1, .l_linger = 0});
}

void finish_on_close(int fd) {
  set_linger(fd, {.l_onoff = 0, .l_linger = 0});
}

void close_with_reset(int fd) {
  reset_on_close(fd);
  ::close(fd);
}

}  // namespace sidetrack::engine
