// SPDX-License-Identifier: Apache-2.0
// st_bench_load MODE ADDRESS FIRST_PORT PORTS CONNECTIONS SECONDS WARMUP: a closed loop of HTTP
// requests, one thread, epoll; what is done in the first WARMUP seconds does not count (but in
// requests_all and client_cpu_s). MODE bulk: writes of 128 KiB, each counts as a request.
// keepalive: each connection sends its next request when the answer is complete; crr: each opens a
// new connection for every request, which the server closes; idle: opens all, makes one request on
// each and keeps them until its stdin ends. Prints one line of JSON. With SECONDS 0 the connections
// are held, and each line on stdin, a number of seconds, makes one measurement and a line of JSON;
// the first line, {}, says that the warm-up is over.
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "tests/bench/histogram.h"
#include "tests/bench/http.h"

namespace {

using namespace sidetrack::bench;

enum class Mode { kKeepAlive, kCrr, kBulk };

struct Slot {
  int fd = -1;
  bool connected = false;
  std::size_t received = 0;
  std::int64_t started_ns = 0;
};

class Load {
 public:
  Load(Mode mode, std::vector<sockaddr_in> targets)
      : mode_(mode), targets_(std::move(targets)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

  void warm_up(std::size_t connections, double seconds) {
    slots_.resize(connections);
    for (Slot& slot : slots_) {
      open(slot);
    }
    run_until(clock_ns(CLOCK_MONOTONIC) + static_cast<std::int64_t>(seconds * 1e9));
  }

  void measure(double seconds) {
    start_ns_ = clock_ns(CLOCK_MONOTONIC);
    before_ = done_;
    latencies_ = Histogram();
    for (Slot& slot : slots_) {
      slot.started_ns = start_ns_;  // what was under way meanwhile has waited for us
    }
    run_until(start_ns_ + static_cast<std::int64_t>(seconds * 1e9));
  }

  void print() const {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const double cpu_s = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    const double seconds = static_cast<double>(now_ns_ - start_ns_) / 1e9;
    std::printf(
        "{\"requests\": %llu, \"requests_all\": %llu, \"errors\": %llu, \"opened\": %llu, "
        "\"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"client_cpu_s\": %.4f}\n",
        static_cast<unsigned long long>(done_ - before_), static_cast<unsigned long long>(done_),
        static_cast<unsigned long long>(errors_), static_cast<unsigned long long>(opened_), seconds,
        latencies_.quantile_ns(0.5) / 1e3, latencies_.quantile_ns(0.99) / 1e3, cpu_s);
    std::fflush(stdout);
  }

 private:
  void run_until(std::int64_t end_ns) {
    std::array<epoll_event, 256> events{};
    for (now_ns_ = clock_ns(CLOCK_MONOTONIC); now_ns_ < end_ns && errors_ < 1000;
         now_ns_ = clock_ns(CLOCK_MONOTONIC)) {
      const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 100);
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        on_event(slots_[event.data.u64], event.events);
      }
    }
  }

  void open(Slot& slot) {
    slot = Slot{.started_ns = clock_ns(CLOCK_MONOTONIC)};
    slot.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    set_nodelay(slot.fd);
    const sockaddr_in& target = targets_[next_target_++ % targets_.size()];
    if (::connect(slot.fd, generic(target), sizeof target) != 0 && errno != EINPROGRESS) {
      die("connect");
    }
    ++opened_;
    epoll_event event{};
    event.events = mode_ == Mode::kBulk ? EPOLLOUT : EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.u64 = static_cast<std::uint64_t>(&slot - slots_.data());
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, slot.fd, &event);
  }

  void request(Slot& slot) {
    const std::string_view text = mode_ == Mode::kCrr ? kCloseRequest : kKeepAliveRequest;
    slot.received = 0;
    if (mode_ == Mode::kKeepAlive) {
      slot.started_ns = clock_ns(CLOCK_MONOTONIC);
    }
    if (::send(slot.fd, text.data(), text.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(text.size())) {
      failed(slot);
    }
  }

  void failed(Slot& slot) {
    ++errors_;
    ::close(slot.fd);
    open(slot);
  }

  // Until the socket takes no more.
  void pour(Slot& slot) {
    static const std::string bytes(kBulkBytes, 'x');
    if (!slot.connected) {
      slot.connected = true;
      if (::send(slot.fd, kBulkStart.data(), kBulkStart.size(), MSG_NOSIGNAL) < 0) {
        failed(slot);
        return;
      }
    }
    for (int i = 0; i < 64; ++i) {  // the clock is looked at between
      const ssize_t sent = ::send(slot.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EAGAIN) {
        return;
      }
      if (sent <= 0) {
        failed(slot);
        return;
      }
      poured_ += static_cast<std::size_t>(sent);
      done_ = poured_ / kBulkBytes;
    }
  }

  void on_event(Slot& slot, std::uint32_t events) {
    if (mode_ == Mode::kBulk) {
      if ((events & EPOLLOUT) != 0) {
        pour(slot);
      }
      return;
    }
    if (!slot.connected && (events & EPOLLOUT) != 0) {
      slot.connected = true;
      request(slot);
      return;
    }
    std::array<char, 4096> buffer{};
    while ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
      const ssize_t got = ::recv(slot.fd, buffer.data(), buffer.size(), 0);
      if (got > 0) {
        slot.received += static_cast<std::size_t>(got);
        if (mode_ == Mode::kKeepAlive && slot.received == kResponse.size()) {
          complete(slot);
          request(slot);
          return;
        }
        continue;
      }
      if (got < 0 && errno == EAGAIN) {
        return;
      }
      if (got == 0 && mode_ == Mode::kCrr && slot.received == kResponse.size()) {
        ::close(slot.fd);
        complete(slot);
        open(slot);
      } else {
        failed(slot);
      }
      return;
    }
  }

  void complete(Slot& slot) {
    latencies_.add(clock_ns(CLOCK_MONOTONIC) - slot.started_ns);
    ++done_;
  }

  Mode mode_;
  std::vector<sockaddr_in> targets_;
  int epoll_;
  std::vector<Slot> slots_;
  Histogram latencies_;
  std::size_t next_target_ = 0;
  std::uint64_t done_ = 0;
  std::uint64_t before_ = 0;  // of these, done in the warm-up
  std::uint64_t poured_ = 0;  // bytes
  std::uint64_t errors_ = 0;
  std::uint64_t opened_ = 0;
  std::int64_t start_ns_ = 0;
  std::int64_t now_ns_ = 0;
};

// Blocking, one after the other.
void hold_idle(const std::vector<sockaddr_in>& targets, std::size_t connections) {
  std::array<char, 4096> buffer{};
  for (std::size_t i = 0; i < connections; ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in& target = targets[i % targets.size()];
    if (::connect(fd, generic(target), sizeof target) != 0) {
      die("connect");
    }
    if (::send(fd, kKeepAliveRequest.data(), kKeepAliveRequest.size(), MSG_NOSIGNAL) < 0) {
      die("send");
    }
    for (std::size_t received = 0; received < kResponse.size();) {
      const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
      if (got <= 0) {
        die("recv");
      }
      received += static_cast<std::size_t>(got);
    }
  }
  std::printf("{\"open\": %zu}\n", connections);
  std::fflush(stdout);
  while (::read(STDIN_FILENO, buffer.data(), buffer.size()) > 0) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) {
    std::fprintf(
        stderr,
        "usage: st_bench_load keepalive|crr|bulk|idle ADDRESS FIRST_PORT PORTS CONNECTIONS "
        "SECONDS WARMUP\n");
    return 2;
  }
  const std::string mode = argv[1];
  std::vector<sockaddr_in> targets;
  for (int i = 0; i < std::atoi(argv[4]); ++i) {
    targets.push_back(address_of(argv[2], static_cast<std::uint16_t>(std::atoi(argv[3]) + i)));
  }
  const auto connections = static_cast<std::size_t>(std::atoi(argv[5]));
  if (mode == "idle") {
    hold_idle(targets, connections);
    return 0;
  }
  Load load(mode == "crr"    ? Mode::kCrr
            : mode == "bulk" ? Mode::kBulk
                             : Mode::kKeepAlive,
            std::move(targets));
  load.warm_up(connections, std::atof(argv[7]));
  double seconds = std::atof(argv[6]);
  if (seconds > 0) {
    load.measure(seconds);
    load.print();
    return 0;
  }
  std::puts("{}");
  std::fflush(stdout);
  while (std::scanf("%lf", &seconds) == 1) {
    load.measure(seconds);
    load.print();
  }
  return 0;
}
