// SPDX-License-Identifier: Apache-2.0
// The ways to read.
#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include "tests/dataplane/fast_cases.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

// 4 GiB are offered to a reader that sleeps: what is taken is bounded, and stays so.
std::string offer_to_a_sleeping_reader(Ends& ends, std::uint64_t most) {
  constexpr int kOffers = 65536;
  std::string bytes(65536, '\0');
  Pattern pattern(kStreamSeed);
  pattern.fill(bytes);
  std::uint64_t taken = 0;
  std::size_t offset = 0;
  for (int i = 0; i < kOffers; ++i) {
    const ssize_t sent =
        ::send(ends.client.get(), bytes.data() + offset, bytes.size() - offset, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
      return ::strerrorname_np(errno);
    }
    offset += sent > 0 ? static_cast<std::size_t>(sent) : 0;
    taken += sent > 0 ? static_cast<std::uint64_t>(sent) : 0;
    if (offset == bytes.size()) {
      pattern.fill(bytes);
      offset = 0;
    }
  }
  EXPECT_LT(taken, most);
  ends.client.reset();
  return read_to_end(ends.server) == whole(taken) + " EOF" ? "stopped, whole" : "not whole";
}

std::string scattered(Ends& ends) {
  std::string said = send_text(ends.client, "scattered to the winds");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'s'");
  std::array<std::array<char, 9>, 3> parts{};
  std::array<iovec, 3> vector{};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    vector.at(i) = {parts.at(i).data(), parts.at(i).size()};
  }
  const ssize_t got = ::readv(ends.server.get(), vector.data(), static_cast<int>(vector.size()));
  for (const auto& part : parts) {
    said += " " + std::string(part.data(), ::strnlen(part.data(), part.size()));
  }
  return fmt::format("{} {}", said, got);
}

// The writer's part of a stream of 300,000 bytes.
void write_stream(const UniqueFd& fd) {
  std::string bytes(300'000, '\0');
  Pattern(kStreamSeed).fill(bytes);
  const auto deadline = Clock::now() + kPatience;
  for (std::size_t sent = 0; sent < bytes.size() && Clock::now() < deadline;) {
    pollfd wanted{fd.get(), POLLOUT, 0};
    (void)::poll(&wanted, 1, poll_timeout(deadline));
    const std::size_t size = std::min<std::size_t>(3333, bytes.size() - sent);
    const ssize_t count = ::send(fd.get(), bytes.data() + sent, size, MSG_NOSIGNAL);
    sent += count > 0 ? static_cast<std::size_t>(count) : 0;
  }
}

// Records of one length, read with MSG_WAITALL, which a non-blocking socket may cut short.
std::string waits_for_all(Ends& ends) {
  std::thread client([&] { write_stream(ends.client); });
  Digest digest;
  std::array<char, 100> record{};
  std::size_t filled = 0;
  while (digest.length() < 300'000) {
    pollfd wanted{ends.server.get(), POLLIN, 0};
    if (::poll(&wanted, 1, static_cast<int>(kPatience.count())) != 1) {
      break;
    }
    const ssize_t got =
        ::recv(ends.server.get(), record.data() + filled, record.size() - filled, MSG_WAITALL);
    filled += got > 0 ? static_cast<std::size_t>(got) : 0;
    if (filled == record.size()) {
      digest.add(record);
      filled = 0;
    }
  }
  client.join();
  return fmt::format("{} {}", digest.length(), digest.hex());
}

// Each byte comes to one of the two, none twice.
std::string two_readers(Ends& ends) {
  constexpr std::uint64_t kLength = 300'000;
  std::atomic<std::uint64_t> total{0};
  std::array<std::atomic<std::uint64_t>, 256> seen{};
  const auto read_some = [&] {
    const auto deadline = Clock::now() + kPatience;
    std::array<unsigned char, 700> in{};
    while (total < kLength && Clock::now() < deadline) {
      pollfd wanted{ends.server.get(), POLLIN, 0};
      (void)::poll(&wanted, 1, 10);
      const ssize_t got = ::recv(ends.server.get(), in.data(), in.size(), 0);
      for (ssize_t i = 0; i < got; ++i) {
        ++seen.at(in.at(static_cast<std::size_t>(i)));
      }
      total += got > 0 ? static_cast<std::uint64_t>(got) : 0;
    }
  };
  std::thread one(read_some);
  std::thread other(read_some);
  write_stream(ends.client);
  one.join();
  other.join();
  std::string all(kLength, '\0');
  Pattern(kStreamSeed).fill(all);
  for (const char byte : all) {
    --seen.at(static_cast<unsigned char>(byte));
  }
  const bool same =
      std::all_of(seen.begin(), seen.end(), [](const auto& left) { return left == 0; });
  return fmt::format("{} {}", total.load(), same ? "the same" : "others");
}

// Both ends in one thread that is interrupted all the time.
std::string interrupted(Ends& ends) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {};
  EXPECT_EQ(::sigaction(SIGALRM, &action, &before), 0);
  const pthread_t here = ::pthread_self();
  std::atomic<bool> done{false};
  std::thread storm([&] {
    while (!done) {
      ::pthread_kill(here, SIGALRM);
      std::this_thread::yield();
    }
  });
  const std::string said = streams({.length = 300'000, .writes = 3})(ends);
  done = true;
  storm.join();
  EXPECT_EQ(::sigaction(SIGALRM, &before, nullptr), 0);
  return said;
}

// Watches edges; answers each request when it has read up to EAGAIN.
std::string edge_triggered_echo(Ends& ends) {
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  EXPECT_EQ(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, ends.server.get(), &event), 0);
  std::string said;
  for (std::size_t size = 1; size < 60'000; size *= 3) {
    const std::string request(size, 'q');
    std::size_t got = 0;
    EXPECT_EQ(send_text(ends.client, request), "sent");
    std::vector<char> in(4096);
    while (got < size &&
           ::epoll_wait(epoll.get(), &event, 1, static_cast<int>(kPatience.count())) == 1) {
      ssize_t count = 0;
      while ((count = ::recv(ends.server.get(), in.data(), in.size(), 0)) > 0) {
        got += static_cast<std::size_t>(count);
      }
    }
    said += fmt::format("{} ", got);
  }
  return said;
}

}  // namespace

std::vector<FastList::Case> readings() {
  return {
      {"flaps around the window",
       streams({.length = 4'000'000, .write_bytes = 16384, .read_bytes = 16384, .writes = 1000}),
       both(4'000'000)},
      {"reads less than is written",
       streams({.length = 300'000, .write_bytes = 1000, .read_bytes = 77}), both(300'000)},
      {"reads more than is written",
       streams({.length = 100'000, .write_bytes = 77, .read_bytes = 1000}), both(100'000)},
      {"readv", scattered, "sent scattered  to the w inds 22"},
      {"MSG_WAITALL", waits_for_all, whole(300'000)},
      {"edge-triggered echo", edge_triggered_echo, "1 3 9 27 81 243 729 2187 6561 19683 59049 "},
      {"two readers", two_readers, "300000 the same"},
      {"SIGALRM storm", interrupted, both(300'000)},
  };
}

FastList::Case offers_to_a_sleeping_reader(std::uint64_t most) {
  return {"4 GiB offered", [most](Ends& ends) { return offer_to_a_sleeping_reader(ends, most); },
          "stopped, whole"};
}

}  // namespace sidetrack::lab
