// SPDX-License-Identifier: Apache-2.0
#include "engine/listener.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <iterator>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "engine/upstream.h"

namespace sidetrack::engine {
namespace {

constexpr int kBacklog = 4096;
constexpr rlim_t kMostFiles =
    131072;  // bounds the table of files that move_up() makes the kernel keep

SocketAddress loopback(int family, std::uint16_t port) {
  if (family == AF_INET) {
    sockaddr_in v4{};
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v4.sin_port = htons(port);
    return from_kernel(v4);
  }
  sockaddr_in6 v6{};
  v6.sin6_addr = IN6ADDR_LOOPBACK_INIT;
  v6.sin6_port = htons(port);
  return from_kernel(v6);
}

// When a process dies, the kernel closes its files from the highest number down (they are task
// work, which runs last in first out). Listeners go first then: who sees a connection cut and
// connects again must not reach a listener that nobody serves any more.
UniqueFd move_up(UniqueFd fd) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) {
    return fd;
  }
  const auto from = static_cast<int>(std::min(files.rlim_cur, kMostFiles) / 2);
  UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, from));
  return moved.valid() ? std::move(moved) : std::move(fd);
}

// One listener, or the errno of what failed. SO_REUSEADDR lets a restarted engine take the port of
// its predecessor while old connections to it are in TIME_WAIT; two live listeners on one port stay
// impossible.
Result<Listener> open_one(int family, std::uint16_t port) {
  Listener listener;
  listener.fd = UniqueFd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!listener.fd.valid()) {
    return errno_error("socket", errno);
  }
  listener.fd = move_up(std::move(listener.fd));
  const int fd = listener.fd.get();
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // Accepted sockets inherit all three. An urgent byte would be lost: it goes on as one of the
  // stream.
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
  reset_on_close(fd);
  if (family == AF_INET6) {
    ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  }
  listener.address = loopback(family, port);
  const KernelAddress address = to_kernel(listener.address);
  if (::bind(fd, address.get(), address.size) != 0) {
    return errno_error(fmt::format("bind {}", to_string(listener.address)), errno);
  }
  if (::listen(fd, kBacklog) != 0) {
    return errno_error(fmt::format("listen {}", to_string(listener.address)), errno);
  }
  socklen_t size = sizeof listener.cookie;
  if (::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &listener.cookie, &size) != 0) {
    return errno_error("SO_COOKIE", errno);
  }
  static std::atomic<std::uint64_t> next_id{1};
  listener.id = next_id.fetch_add(1, std::memory_order_relaxed);
  return listener;
}

Result<std::vector<Listener>> open_family(int family, const ListenerPlan& plan) {
  std::vector<Listener> listeners;
  for (std::uint32_t port = plan.port_low; port <= plan.port_high && listeners.size() < plan.count;
       ++port) {
    const auto candidate = static_cast<std::uint16_t>(port);
    const auto& reserved = plan.reserved_ports;
    if (std::find(reserved.begin(), reserved.end(), candidate) != reserved.end()) {
      continue;
    }
    Result<Listener> opened = open_one(family, candidate);
    if (opened) {
      listeners.push_back(std::move(*opened));
    } else if (opened.error().error_number != EADDRINUSE) {
      return opened.error();
    }
  }
  if (listeners.empty()) {
    return make_error(ErrorCode::kFull,
                      fmt::format("no free port in {}-{}", plan.port_low, plan.port_high));
  }
  return listeners;
}

bool is_missing_family(const Error& error) {
  return error.error_number == EADDRNOTAVAIL || error.error_number == EAFNOSUPPORT;
}

Result<std::vector<Listener>> open_both(const ListenerPlan& plan) {
  Result<std::vector<Listener>> v4 = open_family(AF_INET, plan);
  if (!v4 && !is_missing_family(v4.error())) {
    return v4.error();
  }
  Result<std::vector<Listener>> v6 = open_family(AF_INET6, plan);
  if (!v6 && !is_missing_family(v6.error())) {
    return v6.error();
  }
  if (!v4 && !v6) {
    return v4.error();
  }
  std::vector<Listener> all = v4 ? std::move(*v4) : std::vector<Listener>();
  if (v6) {
    all.insert(all.end(), std::make_move_iterator(v6->begin()), std::make_move_iterator(v6->end()));
  }
  return all;
}

}  // namespace

Result<std::vector<Listener>> open_listeners(const Netns& netns, const ListenerPlan& plan) {
  std::optional<Result<std::vector<Listener>>> result;
  try {
    std::thread([&] {
      if (::setns(netns.fd.get(), CLONE_NEWNET) != 0) {
        result = errno_error("enter netns", errno);
        return;
      }
      result = open_both(plan);
    }).join();
  } catch (const std::system_error& error) {
    return make_error(ErrorCode::kFull, fmt::format("start thread: {}", error.what()));
  }
  return std::move(*result);
}

}  // namespace sidetrack::engine
