// SPDX-License-Identifier: Apache-2.0
// All the ways to read from a connection that skips TCP: the same stream as on plain TCP.
#include <fmt/format.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "tests/dataplane/fast_list.h"
#include "tests/dataplane/fast_scenarios.h"
#include "tests/lab/pattern.h"

#ifdef ST_HAS_URING
#include <liburing.h>
#endif

namespace sidetrack::lab {
namespace {

class FastListReading : public FastList {};

auto streams(const Pace& pace) {
  return [pace](Ends& ends) {
    return words({stream(ends.client, ends.server, pace), stream(ends.server, ends.client, pace)});
  };
}
std::string both(std::uint64_t length) {
  return whole(length) + " " + whole(length);
}

// 4 GiB are offered to a reader that sleeps: what the kernel takes is bounded, and stays so.
std::string sleeping_reader(Ends& ends) {
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
  EXPECT_LT(taken, 20U << 20U);
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

// What a reader of records does: looks until one is whole, whenever the socket is readable. False
// if for `within` nothing more came though nothing was under way. TCP itself may take longer: of
// many small segments a receiver drops what finds no room, and its peer sends again by its timer.
bool peek_until(const Ends& ends, std::size_t length, milliseconds within) {
  std::vector<char> in(length);
  const auto start = Clock::now();
  auto moved = start;
  ssize_t seen = 0;
  while (Clock::now() - moved < within && Clock::now() - start < kPatience) {
    pollfd wanted{ends.server.get(), POLLIN, 0};
    (void)::poll(&wanted, 1, static_cast<int>(within.count()));
    const ssize_t now = ::recv(ends.server.get(), in.data(), length, MSG_PEEK);
    if (now == static_cast<ssize_t>(length)) {
      return true;
    }
    if (now != std::exchange(seen, now) || !is_acknowledged(ends.client)) {
      moved = Clock::now();
    }
  }
  return false;
}

// Requests in lock step, each in three parts.
std::string peeks_until_whole(Ends& ends) {
  constexpr int kRequests = 400;
  std::thread client([&] {
    for (int i = 0; i < kRequests; ++i) {
      for (const char* part : {"head", "er of", " a request\n"}) {
        EXPECT_EQ(send_text(ends.client, part), "sent");
      }
      if (receive_text(ends.client, 9) != "'ok'") {
        break;
      }
    }
  });
  std::string said = "whole";
  for (int i = 0; i < kRequests && said == "whole"; ++i) {
    if (!peek_until(ends, 20, scaled(milliseconds(2000)))) {
      said = "stands still";
      // Whoever reads gets it, in order.
      EXPECT_EQ(scenarios::receive_all(ends.server, 20), "header of a request\n");
    } else if (receive_text(ends.server, 20) != "'header of a request\n'") {
      said = "other bytes";
    }
    if (said == "whole") {
      EXPECT_EQ(send_text(ends.server, "ok"), "sent");
    } else {
      ::shutdown(ends.server.get(), SHUT_RDWR);
    }
  }
  client.join();
  return said;
}

// Records in three parts, more of them under way than fit past TCP.
std::string peeks_at_a_pipeline(Ends& ends) {
  constexpr int kRecords = 2000;
  std::thread client([&] {
    for (int i = 0; i < kRecords * 3; ++i) {
      pollfd wanted{ends.client.get(), POLLOUT, 0};
      (void)::poll(&wanted, 1, static_cast<int>(kPatience.count()));
      if (send_text(ends.client, std::string(30, 'r')) != "sent") {
        return;
      }
    }
  });
  std::string said = "whole";
  for (int i = 0; i < kRecords && said == "whole"; ++i) {
    if (!peek_until(ends, 90, scaled(milliseconds(1500)))) {
      said = "stands still";
      ::shutdown(ends.server.get(), SHUT_RDWR);
    } else {
      EXPECT_EQ(receive_text(ends.server, 90), "'" + std::string(90, 'r') + "'");
    }
  }
  client.join();
  return said;
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

// What recvmsg() says beside the bytes.
std::string beside(const UniqueFd& fd) {
  pollfd wanted{fd.get(), POLLIN, 0};
  (void)::poll(&wanted, 1, static_cast<int>(kPatience.count()));
  std::array<char, 16> bytes{};
  std::array<char, 256> control{};
  iovec part{bytes.data(), 3};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(fd.get(), &message, 0);
  std::string said = std::to_string(got);
  for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
    said += fmt::format(" {}/{}", one->cmsg_level, one->cmsg_type);
  }
  return said;
}

// Time stamps begin a moment after they were asked for.
auto asks_late(int level, int option) {
  return [=](Ends& ends) {
    set_option(ends.server, level, option, 1);
    std::string said;
    EXPECT_TRUE(eventually(scaled(milliseconds(1000)), [&] {
      EXPECT_EQ(send_text(ends.client, "012"), "sent");
      said = beside(ends.server);
      return said != "3";
    }));
    return said;
  };
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

#ifdef ST_HAS_URING
// One operation to its end; what it says.
int run_uring(io_uring& ring, const std::function<void(io_uring_sqe*)>& prepare) {
  prepare(::io_uring_get_sqe(&ring));
  io_uring_cqe* done = nullptr;
  if (::io_uring_submit_and_wait(&ring, 1) < 0 || ::io_uring_wait_cqe(&ring, &done) != 0) {
    return -EIO;
  }
  const int result = done->res;
  ::io_uring_cqe_seen(&ring, done);
  return result;
}

std::string read_by_uring(io_uring& ring, const UniqueFd& fd, std::size_t length) {
  std::string got;
  while (got.size() < length) {
    (void)run_uring(ring, [&](auto* one) { ::io_uring_prep_poll_add(one, fd.get(), POLLIN); });
    std::array<char, 64> in{};
    const int count = run_uring(
        ring, [&](auto* one) { ::io_uring_prep_recv(one, fd.get(), in.data(), in.size(), 0); });
    if (count <= 0) {
      return ::strerrorname_np(-count);
    }
    got.append(in.data(), static_cast<std::size_t>(count));
  }
  return got;
}

// `waits`: what is there already.
std::string talk_by_uring(const Ends& ends, const std::string& waits) {
  io_uring ring{};
  if (const int failure = ::io_uring_queue_init(4, &ring, 0); failure != 0) {
    return ::strerrorname_np(-failure);
  }
  std::string said;
  for (int i = 0; i < 200; ++i) {
    const std::string request = fmt::format("request {}", i);
    EXPECT_EQ(run_uring(ring,
                        [&](auto* entry) {
                          ::io_uring_prep_send(entry, ends.client.get(), request.data(),
                                               request.size(), MSG_NOSIGNAL);
                        }),
              static_cast<int>(request.size()));
    const std::string expected = i == 0 ? waits + request : request;
    said = read_by_uring(ring, ends.server, expected.size());
    if (said != expected) {
      break;
    }
  }
  ::io_uring_queue_exit(&ring);
  return said;
}

// In the pod, with bytes that wait past TCP when it begins.
std::string by_uring(Ends& ends) {
  EXPECT_EQ(send_text(ends.client, "waits"), "sent");
  const UniqueFd netns(::ioctl(ends.server.get(), SIOCGSKNS));
  std::string said;
  const auto done = run_in_netns(netns.get(), [&]() -> Result<void> {
    said = talk_by_uring(ends, "waits");
    return {};
  });
  return done ? said : done.error().message;
}
#endif

TEST_F(FastListReading, all_that_is_read_is_that_of_tcp) {
  expect_all({
      {"flaps around the window",
       streams({.length = 4'000'000, .write_bytes = 16384, .read_bytes = 16384, .writes = 1000}),
       both(4'000'000)},
      {"reads less than is written",
       streams({.length = 300'000, .write_bytes = 1000, .read_bytes = 77}), both(300'000)},
      {"reads more than is written",
       streams({.length = 100'000, .write_bytes = 77, .read_bytes = 1000}), both(100'000)},
      {"readv", scattered, "sent scattered  to the w inds 22"},
      // The machine may take a CPU away from a thread that is inside of a call.
      {"MSG_PEEK until it is whole", peeks_until_whole, "whole", "stands still", 1, {}, true},
      {"MSG_WAITALL", waits_for_all, whole(300'000)},
      {"edge-triggered echo", edge_triggered_echo, "1 3 9 27 81 243 729 2187 6561 19683 59049 "},
      {"two readers", two_readers, "300000 the same"},
      {"SIGALRM storm", interrupted, both(300'000)},
      {"TCP_INQ set late", asks_late(IPPROTO_TCP, TCP_INQ), "3 6/36", {}, 1, "fp_tcp_inq"},
      {"SO_TIMESTAMP set late",
       asks_late(SOL_SOCKET, SO_TIMESTAMP),
       "3 1/29",
       {},
       1,
       "fp_timestamping"},
  });

  expect_all({{"MSG_PEEK at a pipeline", peeks_at_a_pipeline, "whole", "stands still", 2}},
             {{Where::kVeth, Ip::kV4}});
  const std::vector<Road> some = {
      {Where::kVeth, Ip::kMapped}, {Where::kLoopback, Ip::kV4}, {Where::kService, Ip::kV6}};
  expect_all({{"4 GiB offered", sleeping_reader, "stopped, whole"}}, some);
#ifdef ST_HAS_URING
  expect_apart({"io_uring", by_uring, "request 199"}, {{Where::kVeth, Ip::kMapped},
                                                       {Where::kVeth, Ip::kV6, Cpu::kOther},
                                                       {Where::kLoopback, Ip::kV4}});
  EXPECT_EQ(reason_of("apart-2/server"), "fp_io_uring");
#endif
}

}  // namespace
}  // namespace sidetrack::lab
