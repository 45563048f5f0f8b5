// SPDX-License-Identifier: Apache-2.0
// st_echo MODE:PORT[:BYTES]...: a server with one event loop for any number of listeners, each on
// [::] for IPv4 and IPv6. Says "listening MODE PORT" per listener (port 0 = any) and then "ready";
// ends at the end of its stdin.
//   echo      sends back what comes, half-closes when the client has
//   greeting  sends "hello\r\n" first, then as echo
//   hash      reads to the end, then answers "LENGTH DIGEST\n"
//   whoami    sends the peer's address as it sees it, "ADDRESS PORT\n", and closes
//   reset     resets a connection when its first byte comes: connect() has returned by then
//   stream    sends BYTES bytes of the pattern of seed 1, half-closes
//   deaf      as stream, but never reads
//   sink      reads to the end, closes
//   http      answers every request head with 200 and "ok", keeps the connection
//   udp       sends datagrams back
//   silent    accepts and never reads
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "sidetrack/unique_fd.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

constexpr std::size_t kBufferBytes = 256 * 1024;

struct Listener {
  std::string mode;
  std::uint64_t stream_bytes = 0;
  UniqueFd fd;

  [[nodiscard]] bool streams() const { return mode == "stream" || mode == "deaf"; }
  [[nodiscard]] bool reads() const { return mode != "silent" && mode != "deaf"; }
};

struct Connection {
  UniqueFd fd;
  const Listener* listener = nullptr;
  std::string out;  // still to be sent
  bool end_seen = false;
  bool end_sent = false;
  Digest digest;
  Pattern pattern{1};
  std::uint64_t stream_left = 0;
};

class Server {
 public:
  bool add_listener(std::string_view spec);
  int run();

 private:
  void accept_all(const Listener& listener);
  void begin(const Listener& listener, UniqueFd fd, const sockaddr_in6& peer);
  static bool read_some(Connection& connection);
  static void take(Connection& connection, std::span<const char> bytes);
  static void at_end(Connection& connection);
  static bool write_some(Connection& connection);
  void serve(Connection& connection, std::uint32_t events);
  void watch(const Connection& connection);
  static void answer_datagrams(int fd);

  UniqueFd epoll_{::epoll_create1(EPOLL_CLOEXEC)};
  std::unordered_map<int, std::unique_ptr<Listener>> listeners_;
  std::unordered_map<int, std::unique_ptr<Connection>> connections_;
};

bool Server::add_listener(std::string_view spec) {
  auto listener = std::make_unique<Listener>();
  const std::size_t colon = spec.find(':');
  listener->mode = spec.substr(0, colon);
  std::uint16_t port = 0;
  if (colon != std::string_view::npos) {
    const std::string_view rest = spec.substr(colon + 1);
    const auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), port);
    if (parsed.ptr != rest.data() + rest.size()) {
      std::from_chars(parsed.ptr + 1, rest.data() + rest.size(), listener->stream_bytes);
    }
  }
  const int type = listener->mode == "udp" ? SOCK_DGRAM : SOCK_STREAM;
  listener->fd = UniqueFd(::socket(AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  const int off = 0;
  ::setsockopt(listener->fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  ::setsockopt(listener->fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  socklen_t size = sizeof(address);
  if (::bind(listener->fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      (type == SOCK_STREAM && ::listen(listener->fd.get(), 4096) != 0) ||
      ::getsockname(listener->fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::perror(std::string(spec).c_str());
    return false;
  }
  fmt::print("listening {} {}\n", listener->mode, ntohs(address.sin6_port));
  epoll_event event{.events = EPOLLIN, .data = {.fd = listener->fd.get()}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener->fd.get(), &event);
  listeners_.emplace(listener->fd.get(), std::move(listener));
  return true;
}

void Server::accept_all(const Listener& listener) {
  for (;;) {
    sockaddr_in6 peer{};
    socklen_t size = sizeof(peer);
    UniqueFd fd(::accept4(listener.fd.get(), reinterpret_cast<sockaddr*>(&peer), &size,
                          SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) {
      return;
    }
    begin(listener, std::move(fd), peer);
  }
}

void Server::begin(const Listener& listener, UniqueFd fd, const sockaddr_in6& peer) {
  auto connection = std::make_unique<Connection>();
  connection->listener = &listener;
  connection->fd = std::move(fd);
  if (listener.mode == "greeting") {
    connection->out = "hello\r\n";
  } else if (listener.mode == "whoami") {
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr)) {
      ::inet_ntop(AF_INET, &peer.sin6_addr.s6_addr[12], text.data(), text.size());
    } else {
      ::inet_ntop(AF_INET6, &peer.sin6_addr, text.data(), text.size());
    }
    connection->out = fmt::format("{} {}\n", text.data(), ntohs(peer.sin6_port));
    connection->end_seen = true;
  } else if (listener.streams()) {
    connection->stream_left = listener.stream_bytes;
  }
  epoll_event event{.events = 0, .data = {.fd = connection->fd.get()}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection->fd.get(), &event);
  Connection& added = *connection;
  connections_[added.fd.get()] = std::move(connection);
  serve(added, EPOLLOUT);
}

void Server::take(Connection& connection, std::span<const char> bytes) {
  const std::string& mode = connection.listener->mode;
  if (mode == "echo" || mode == "greeting") {
    connection.out.append(bytes.data(), bytes.size());
  } else if (mode == "hash") {
    connection.digest.add(bytes);
  } else if (mode == "http") {
    // `digest` is idle in this mode; the state needed is how much of "\r\n\r\n" has been seen.
    static constexpr std::string_view kHeadEnd = "\r\n\r\n";
    for (const char byte : bytes) {
      std::uint64_t& seen = connection.stream_left;
      seen = byte == kHeadEnd[seen] ? seen + 1 : (byte == '\r' ? 1U : 0U);
      if (seen == kHeadEnd.size()) {
        seen = 0;
        connection.out +=
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok";
      }
    }
  }
}

void Server::at_end(Connection& connection) {
  connection.end_seen = true;
  if (connection.listener->mode == "hash") {
    connection.out = fmt::format("{} {}\n", connection.digest.length(), connection.digest.hex());
  }
}

// False: the connection is broken.
bool Server::read_some(Connection& connection) {
  static std::array<char, kBufferBytes> buffer;
  const ssize_t count = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
  if (count > 0 && connection.listener->mode == "reset") {
    const linger abort{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(connection.fd.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
    return false;
  }
  if (count > 0) {
    take(connection, {buffer.data(), static_cast<std::size_t>(count)});
    return true;
  }
  if (count == 0) {
    at_end(connection);
    return true;
  }
  return errno == EAGAIN || errno == EINTR;
}

// False: the connection is broken or done.
bool Server::write_some(Connection& connection) {
  const bool streams = connection.listener->streams();
  if (streams && connection.out.empty() && connection.stream_left > 0) {
    connection.out.resize(std::min<std::uint64_t>(connection.stream_left, 65536));
    connection.pattern.fill(connection.out);
    connection.stream_left -= connection.out.size();
  }
  if (!connection.out.empty()) {
    const ssize_t count =
        ::send(connection.fd.get(), connection.out.data(), connection.out.size(), MSG_NOSIGNAL);
    if (count < 0) {
      return errno == EAGAIN || errno == EINTR;
    }
    connection.out.erase(0, static_cast<std::size_t>(count));
  }
  const bool said_all =
      connection.out.empty() && (streams ? connection.stream_left == 0 : connection.end_seen);
  if (said_all && !connection.end_sent) {
    connection.end_sent = true;
    ::shutdown(connection.fd.get(), SHUT_WR);
  }
  return !(connection.end_sent && connection.end_seen);
}

void Server::watch(const Connection& connection) {
  std::uint32_t wanted = 0;
  if (!connection.end_seen && connection.out.size() < kBufferBytes &&
      connection.listener->reads()) {
    wanted |= EPOLLIN;
  }
  if (!connection.out.empty() || (connection.listener->streams() && !connection.end_sent)) {
    wanted |= EPOLLOUT;
  }
  epoll_event event{.events = wanted, .data = {.fd = connection.fd.get()}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.fd.get(), &event);
}

void Server::serve(Connection& connection, std::uint32_t events) {
  bool alive = true;
  if ((events & EPOLLIN) != 0U) {
    alive = read_some(connection);
  } else if ((events & (EPOLLERR | EPOLLHUP)) != 0U && connection.out.empty()) {
    alive = false;  // a reset while nothing is asked for would come again and again
  }
  if (alive && write_some(connection)) {
    watch(connection);
  } else {
    connections_.erase(connection.fd.get());
  }
}

void Server::answer_datagrams(int fd) {
  std::array<char, 65536> buffer;
  for (;;) {
    sockaddr_in6 peer{};
    socklen_t size = sizeof(peer);
    const ssize_t count =
        ::recvfrom(fd, buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&peer), &size);
    if (count < 0) {
      return;
    }
    (void)::sendto(fd, buffer.data(), static_cast<std::size_t>(count), 0,
                   reinterpret_cast<sockaddr*>(&peer), size);
  }
}

int Server::run() {
  epoll_event input{.events = EPOLLIN, .data = {.fd = STDIN_FILENO}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, STDIN_FILENO, &input);
  fmt::print("ready\n");
  std::fflush(stdout);
  std::array<epoll_event, 256> events;
  for (;;) {
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      char byte = 0;
      if (event.data.fd == STDIN_FILENO && ::read(STDIN_FILENO, &byte, 1) <= 0) {
        return 0;
      }
      if (const auto listener = listeners_.find(event.data.fd); listener != listeners_.end()) {
        if (listener->second->mode == "udp") {
          answer_datagrams(event.data.fd);
        } else {
          accept_all(*listener->second);
        }
      } else if (const auto known = connections_.find(event.data.fd); known != connections_.end()) {
        serve(*known->second, event.events);
      }
    }
  }
}

}  // namespace
}  // namespace sidetrack::lab

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  sidetrack::lab::Server server;
  for (int i = 1; i < argc; ++i) {
    if (!server.add_listener(argv[i])) {
      return 1;
    }
  }
  return server.run();
}
