// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/engine_lab.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace sidetrack::engine {
namespace {

bool raise_loopback() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  return ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0;
}

SocketAddress local_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size);
  return storage.ss_family == AF_INET ? from_kernel(reinterpret_cast<const sockaddr_in&>(storage))
                                      : from_kernel(reinterpret_cast<const sockaddr_in6&>(storage));
}

void bound_waits(int fd) {
  const timeval limit{.tv_sec = 20, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

}  // namespace

void FixedDestination::set(std::optional<SocketAddress> destination) {
  const std::lock_guard lock(mutex_);
  destination_ = destination;
}

std::optional<SocketAddress> FixedDestination::of(int, const SocketAddress&) const {
  const std::lock_guard lock(mutex_);
  return destination_;
}

SocketAddress v4(const char* text, std::uint16_t port) {
  sockaddr_in address{};
  ::inet_pton(AF_INET, text, &address.sin_addr);
  address.sin_port = htons(port);
  return from_kernel(address);
}

SocketAddress v6(const char* text, std::uint16_t port) {
  sockaddr_in6 address{};
  ::inet_pton(AF_INET6, text, &address.sin6_addr);
  address.sin6_port = htons(port);
  return from_kernel(address);
}

UniqueFd listen_at(SocketAddress& address, int backlog) {
  const KernelAddress kernel = to_kernel(address);
  UniqueFd fd(::socket(kernel.get()->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::bind(fd.get(), kernel.get(), kernel.size), 0) << std::strerror(errno);
  EXPECT_EQ(::listen(fd.get(), backlog), 0);
  bound_waits(fd.get());
  address = local_address(fd.get());
  return fd;
}

UniqueFd connect_to(const SocketAddress& address) {
  const KernelAddress kernel = to_kernel(address);
  UniqueFd fd(::socket(kernel.get()->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  bound_waits(fd.get());
  if (::connect(fd.get(), kernel.get(), kernel.size) != 0) {
    return UniqueFd();
  }
  return fd;
}

UniqueFd accept_from(const UniqueFd& listener) {
  UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  bound_waits(fd.get());
  return fd;
}

void send_text(const UniqueFd& socket, const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t sent = ::send(socket.get(), text.data() + done, text.size() - done, MSG_NOSIGNAL);
    ASSERT_GT(sent, 0) << std::strerror(errno);
    done += static_cast<std::size_t>(sent);
  }
}

ReadResult read_all(const UniqueFd& socket, std::size_t limit) {
  ReadResult result;
  std::string chunk(65536, '\0');
  while (result.text.size() < limit) {
    const ssize_t got =
        ::recv(socket.get(), chunk.data(), std::min(chunk.size(), limit - result.text.size()), 0);
    if (got <= 0) {
      result.error_number = got < 0 ? errno : 0;
      result.eof = got == 0;
      break;
    }
    result.text.append(chunk, 0, static_cast<std::size_t>(got));
  }
  return result;
}

void abort_socket(UniqueFd& socket) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  socket.reset();
}

bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

void EngineLab::SetUp() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);

  engine_ = std::make_unique<Engine>(EngineSettings{.threads = 2}, destination_);
  const auto started = engine_->start();
  ASSERT_TRUE(started) << started.error().message;
  if (::unshare(CLONE_NEWNET) != 0) {
    GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace of its own";
  }
  ASSERT_TRUE(raise_loopback());
  UniqueFd netns(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  const auto pod = engine_->add_pod(kCookie, std::move(netns), ListenerPlan{});
  ASSERT_TRUE(pod) << pod.error().message;
  listener_ = (*pod)->listeners.front().address;
}

UniqueFd EngineLab::client_of(const SocketAddress& destination) {
  destination_.set(destination);
  return connect_to(listener_);
}

SocketAddress EngineLab::closed_port() {
  SocketAddress address = v4("127.0.0.1", 0);
  const UniqueFd held = listen_at(address);
  return address;
}

}  // namespace sidetrack::engine
