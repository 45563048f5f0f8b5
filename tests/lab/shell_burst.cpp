// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/shell_burst.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <map>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct Tally {
  std::uint64_t ok = 0;
  std::uint64_t mismatches = 0;
  std::map<std::string, std::uint64_t> connect_errors;
  std::map<std::string, std::uint64_t> io_errors;
  std::vector<std::int64_t> latencies_us;
};

// Sends `request` and reads as much back; false with errno set, 0 for an early end of the stream.
bool round_trip(int fd, const std::vector<char>& request, std::vector<char>& reply) {
  if (::send(fd, request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return false;
  }
  for (std::size_t got = 0; got < reply.size();) {
    const ssize_t count = ::recv(fd, reply.data() + got, reply.size() - got, 0);
    if (count <= 0) {
      errno = count == 0 ? 0 : errno;
      return false;
    }
    got += static_cast<std::size_t>(count);
  }
  return true;
}

void one_connection(const SocketAddress& target, const Words& words, std::uint64_t seed,
                    Tally& tally) {
  const auto started = SteadyClock::now();
  std::vector<char> request(words.number("len", 32));
  std::vector<char> reply(request.size());
  Pattern(seed).fill(request);
  const UniqueFd fd(::socket(target.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  set_timeout(fd.get(), words.number("timeout_ms", 10'000));
  if (words.has("reset")) {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  }
  const SocketAddress source = parse_address(words.value("bind"), 0);
  if (source.size != 0 && ::bind(fd.get(), source.get(), source.size) != 0) {
    ++tally.connect_errors[errno_name(errno)];
    return;
  }
  if (::connect(fd.get(), target.get(), target.size) != 0) {
    ++tally.connect_errors[errno_name(errno)];
    return;
  }
  if (!round_trip(fd.get(), request, reply)) {
    ++tally.io_errors[errno == 0 ? "EOF" : errno_name(errno)];
    return;
  }
  if (reply != request) {
    ++tally.mismatches;
    return;
  }
  ++tally.ok;
  tally.latencies_us.push_back(
      std::chrono::duration_cast<std::chrono::microseconds>(SteadyClock::now() - started).count());
}

void add(Tally& sum, const Tally& part) {
  sum.ok += part.ok;
  sum.mismatches += part.mismatches;
  for (const auto& [name, count] : part.connect_errors) {
    sum.connect_errors[name] += count;
  }
  for (const auto& [name, count] : part.io_errors) {
    sum.io_errors[name] += count;
  }
  sum.latencies_us.insert(sum.latencies_us.end(), part.latencies_us.begin(),
                          part.latencies_us.end());
}

}  // namespace

nlohmann::json run_burst(const Words& words) {
  const SocketAddress target = address_at(words, 1);
  const std::uint64_t count = std::strtoull(words.at(3).c_str(), nullptr, 10);
  if (target.size == 0 || count == 0) {
    return {{"error", "burst ADDRESS PORT COUNT"}};
  }
  const auto started = SteadyClock::now();
  std::vector<Tally> tallies(std::max<std::uint64_t>(1, words.number("threads", 1)));
  std::atomic<std::uint64_t> next{0};
  {
    std::vector<std::jthread> workers;
    for (Tally& tally : tallies) {
      workers.emplace_back([&] {
        for (std::uint64_t i = next++; i < count; i = next++) {
          one_connection(target, words, i + 1, tally);
        }
      });
    }
  }
  Tally sum;
  for (const Tally& tally : tallies) {
    add(sum, tally);
  }
  std::sort(sum.latencies_us.begin(), sum.latencies_us.end());
  const auto& sorted = sum.latencies_us;
  return {{"ok", sum.ok},
          {"mismatches", sum.mismatches},
          {"connect_errors", sum.connect_errors},
          {"io_errors", sum.io_errors},
          {"max_us", sorted.empty() ? 0 : sorted.back()},
          {"p50_us", sorted.empty() ? 0 : sorted[sorted.size() / 2]},
          {"total_us",
           std::chrono::duration_cast<std::chrono::microseconds>(SteadyClock::now() - started)
               .count()}};
}

}  // namespace sidetrack::lab
