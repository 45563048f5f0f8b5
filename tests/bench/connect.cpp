// SPDX-License-Identifier: Apache-2.0
// st_bench_connect ADDRESS PORT PAIRS SLICE_MS CPU SERVER_NETNS CGROUP_A CGROUP_B: what a
// connection per request costs with the sockets of both ends in one cgroup against the other. One
// client and one server process, both on one CPU; short slices in turn, AB BA AB..., in the very
// same processes, so that what the machine does meanwhile hits both alike. The client makes its
// sockets, and the server its listener, while they are in the cgroup in question: sockets stay in
// the cgroup of their birth. A's listener is PORT, B's is PORT + 1. Prints one line of JSON: per
// slice ns per connection, wall clock and CPU of both ends.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "tests/bench/http.h"

namespace {

using namespace sidetrack::bench;

struct Slice {
  double wall_ns = 0;
  double cpu_ns = 0;
  std::int64_t connections = 0;
};

void join_cgroup(const std::string& folder) {
  const int fd = ::open((folder + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0 || ::write(fd, "0", 1) != 1) {
    die(folder.c_str());
  }
  ::close(fd);
}

void enter_netns(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || ::setns(fd, CLONE_NEWNET) != 0) {
    die(path);
  }
  ::close(fd);
}

[[noreturn]] void serve(std::array<int, 2> listeners) {
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  for (const int listener : listeners) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = listener;
    ::epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  }
  std::array<char, 4096> buffer{};
  for (;;) {
    epoll_event event{};
    if (::epoll_wait(epoll, &event, 1, -1) != 1) {
      continue;
    }
    const int fd = ::accept4(event.data.fd, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      continue;
    }
    if (::recv(fd, buffer.data(), buffer.size(), 0) > 0) {
      (void)!::send(fd, kResponse.data(), kResponse.size(), MSG_NOSIGNAL);
    }
    ::close(fd);
  }
}

void request_once(const sockaddr_in& target) {
  std::array<char, 4096> buffer{};
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ::connect(fd, generic(target), sizeof target) != 0) {
    die("connect");
  }
  if (::send(fd, kCloseRequest.data(), kCloseRequest.size(), MSG_NOSIGNAL) < 0) {
    die("send");
  }
  std::size_t received = 0;
  for (ssize_t got = 1; got > 0; received += static_cast<std::size_t>(got)) {
    got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got < 0) {
      die("recv");
    }
  }
  if (received != kResponse.size()) {
    errno = EPROTO;
    die("answer");
  }
  ::close(fd);
}

Slice run_slice(const std::string& cgroup, const sockaddr_in& target, std::int64_t length_ns,
                clockid_t server_clock) {
  join_cgroup(cgroup);
  for (int i = 0; i < 20; ++i) {
    request_once(target);  // warms what the move between cgroups made cold
  }
  Slice slice;
  const std::int64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) + clock_ns(server_clock);
  const std::int64_t start = clock_ns(CLOCK_MONOTONIC);
  std::int64_t now = start;
  for (; now < start + length_ns; now = clock_ns(CLOCK_MONOTONIC)) {
    for (int i = 0; i < 16; ++i) {
      request_once(target);
    }
    slice.connections += 16;
  }
  const std::int64_t cpu_end = clock_ns(CLOCK_PROCESS_CPUTIME_ID) + clock_ns(server_clock);
  slice.wall_ns = static_cast<double>(now - start) / static_cast<double>(slice.connections);
  slice.cpu_ns = static_cast<double>(cpu_end - cpu) / static_cast<double>(slice.connections);
  return slice;
}

void print(const std::vector<std::array<Slice, 2>>& pairs) {
  std::printf("{\"pairs\": [");
  const char* separator = "";
  for (const auto& [a, b] : pairs) {
    std::printf(
        "%s{\"wall_a\": %.1f, \"wall_b\": %.1f, \"cpu_a\": %.1f, \"cpu_b\": %.1f, \"count\": %lld}",
        separator, a.wall_ns, b.wall_ns, a.cpu_ns, b.cpu_ns,
        static_cast<long long>(a.connections + b.connections));
    separator = ", ";
  }
  std::printf("]}\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 9) {
    std::fprintf(
        stderr,
        "usage: st_bench_connect ADDRESS PORT PAIRS SLICE_MS CPU SERVER_NETNS CGROUP_A CGROUP_B\n");
    return 2;
  }
  const auto port = static_cast<std::uint16_t>(std::atoi(argv[2]));
  const std::array<std::string, 2> cgroups = {argv[7], argv[8]};
  const std::array<sockaddr_in, 2> targets = {
      address_of(argv[1], port), address_of(argv[1], static_cast<std::uint16_t>(port + 1))};
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(static_cast<std::size_t>(std::atoi(argv[5])), &cpus);
  ::sched_setaffinity(0, sizeof cpus, &cpus);
  ::setpriority(PRIO_PROCESS, 0, -20);

  std::array<int, 2> ready{};
  if (::pipe(ready.data()) != 0) {
    die("pipe");
  }
  const pid_t server = ::fork();
  if (server == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    enter_netns(argv[6]);
    std::array<int, 2> listeners{};
    for (std::size_t i = 0; i < 2; ++i) {
      join_cgroup(cgroups[i]);
      listeners[i] = open_listener(argv[1], static_cast<std::uint16_t>(port + i), 0);
    }
    (void)!::write(ready[1], "r", 1);
    serve(listeners);
  }
  char byte = 0;
  clockid_t server_clock{};
  if (::read(ready[0], &byte, 1) != 1 || ::clock_getcpuclockid(server, &server_clock) != 0) {
    die("server");
  }
  std::vector<std::array<Slice, 2>> pairs;
  const std::int64_t length_ns = std::atoi(argv[4]) * 1'000'000LL;
  for (int i = 0; i < std::atoi(argv[3]) + 1; ++i) {
    std::array<Slice, 2> pair;
    const std::size_t first = static_cast<std::size_t>(i) % 2;
    for (const std::size_t side : {first, 1 - first}) {
      pair[side] = run_slice(cgroups[side], targets[side], length_ns, server_clock);
    }
    if (i > 0) {  // the first pair only warms
      pairs.push_back(pair);
    }
  }
  ::kill(server, SIGKILL);
  ::waitpid(server, nullptr, 0);
  print(pairs);
  return 0;
}
