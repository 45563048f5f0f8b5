// SPDX-License-Identifier: Apache-2.0
// The few things of HTTP/1.1 and of sockets that server, load generator and connect benchmark
// share. Not an HTTP implementation: both ends are ours. Failures of the benchmark itself end the
// process.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string_view>

namespace sidetrack::bench {

inline constexpr std::string_view kKeepAliveRequest =
    "GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: st_bench\r\n\r\n";
inline constexpr std::string_view kCloseRequest =
    "GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: st_bench\r\nConnection: close\r\n\r\n";
inline constexpr std::string_view kCloseHeader = "Connection: close";
inline constexpr std::string_view kHeaderEnd = "\r\n\r\n";
// A connection that begins with it is read to its end and gets no answer.
inline constexpr std::string_view kBulkStart = "BULK";
inline constexpr std::size_t kBulkBytes = 128 << 10;
// 128 bytes of body.
inline constexpr std::string_view kResponse =
    "HTTP/1.1 200 OK\r\nServer: st_bench\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n"
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";

[[noreturn]] inline void die(const char* what) {
  std::fprintf(stderr, "bench: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

inline std::int64_t clock_ns(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

inline sockaddr_in address_of(const char* text, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (::inet_pton(AF_INET, text, &address.sin_addr) != 1) {
    errno = EINVAL;
    die(text);
  }
  return address;
}

inline const sockaddr* generic(const sockaddr_in& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

inline void set_nodelay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// `flags`: SOCK_NONBLOCK or 0.
inline int open_listener(const char* address_text, std::uint16_t port, int flags) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  const int on = 1;
  const sockaddr_in address = address_of(address_text, port);
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  set_nodelay(fd);  // accepted sockets inherit it
  if (::bind(fd, generic(address), sizeof address) != 0 || ::listen(fd, 4096) != 0) {
    die("listen");
  }
  return fd;
}

}  // namespace sidetrack::bench
