// SPDX-License-Identifier: Apache-2.0
// st_bench_server ADDRESS FIRST_PORT COUNT: answers every HTTP request with the same 128 bytes,
// with keep-alive or, if asked so, closing first. One thread, epoll. Several ports, because a
// connection per request needs many 4-tuples.
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "tests/bench/http.h"

namespace {

using namespace sidetrack::bench;

class Server {
 public:
  Server() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

  void listen(const char* address, std::uint16_t port) {
    const int fd = open_listener(address, port, SOCK_NONBLOCK);
    listeners_.insert(fd);
    watch(fd);
  }

  [[noreturn]] void run() {
    std::array<epoll_event, 256> events{};
    for (;;) {
      const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        if (listeners_.count(fd) != 0) {
          accept_all(fd);
        } else if (sinks_.count(fd) != 0) {
          swallow(fd);
        } else {
          serve(fd);
        }
      }
    }
  }

 private:
  void watch(int fd) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
      die("epoll_ctl");
    }
  }

  void accept_all(int listener) {
    for (;;) {
      const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        return;
      }
      watch(fd);
    }
  }

  void drop(int fd) {
    partial_.erase(fd);
    sinks_.erase(fd);
    ::close(fd);
  }

  void swallow(int fd) {
    static std::array<char, 2 * kBulkBytes> buffer;
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
      drop(fd);
    }
  }

  // Requests of the load generator fit into one read; a proxy may still cut them.
  void serve(int fd) {
    std::array<char, 4096> buffer{};
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EAGAIN) {
      return;
    }
    if (got <= 0) {
      drop(fd);
      return;
    }
    std::string_view data(buffer.data(), static_cast<std::size_t>(got));
    if (data.starts_with(kBulkStart)) {
      sinks_.insert(fd);
      return;
    }
    std::string joined;
    if (const auto found = partial_.find(fd); found != partial_.end()) {
      joined = found->second + std::string(data);
      partial_.erase(found);
      data = joined;
    }
    for (std::size_t end = data.find(kHeaderEnd); end != std::string_view::npos;
         end = data.find(kHeaderEnd)) {
      const bool close = data.substr(0, end).find(kCloseHeader) != std::string_view::npos;
      if (::send(fd, kResponse.data(), kResponse.size(), MSG_NOSIGNAL) !=
              static_cast<ssize_t>(kResponse.size()) ||
          close) {
        drop(fd);
        return;
      }
      data.remove_prefix(end + kHeaderEnd.size());
    }
    if (!data.empty()) {
      partial_[fd] = std::string(data);
    }
  }

  int epoll_;
  std::unordered_set<int> listeners_;
  std::unordered_set<int> sinks_;
  std::unordered_map<int, std::string> partial_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: st_bench_server ADDRESS FIRST_PORT COUNT\n");
    return 2;
  }
  Server server;
  for (int i = 0; i < std::atoi(argv[3]); ++i) {
    server.listen(argv[1], static_cast<std::uint16_t>(std::atoi(argv[2]) + i));
  }
  std::puts("ready");
  std::fflush(stdout);
  server.run();
}
