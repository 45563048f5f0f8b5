// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <functional>
#include <vector>

#include "agent/selftest/rig.h"

namespace sidetrack::selftest {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kStreamBytes = 64 << 20;
constexpr unsigned kConnections = 8;           // that the checks below use
constexpr std::size_t kMostQueued = 32 << 20;  // window, and what TCP buffers at most

// What was seen, or what went wrong.
using Seen = Result<std::string>;

Error wrong(const std::string& what) {
  return make_error(ErrorCode::kInternal, what);
}

char byte_at(std::size_t position, unsigned seed) {
  return static_cast<char>((position * 2654435761U + seed) >> 13);
}

// One direction of a stream that knows each byte by its position.
class Stream {
 public:
  Stream(const UniqueFd& from, const UniqueFd& to, unsigned seed)
      : from_(from), to_(to), seed_(seed) {}
  [[nodiscard]] bool done() const { return received_ == kStreamBytes; }
  Result<void> step() {
    std::array<char, 48000> bytes{};
    const std::size_t size =
        std::min({bytes.size(), 1 + (sent_ * 7919U) % bytes.size(), kStreamBytes - sent_});
    for (std::size_t i = 0; i < size; ++i) {
      bytes[i] = byte_at(sent_ + i, seed_);
    }
    const ssize_t sent = size == 0 ? 0 : send(from_.get(), bytes.data(), size, MSG_NOSIGNAL);
    sent_ += sent > 0 ? static_cast<std::size_t>(sent) : 0;
    const ssize_t got = recv(to_.get(), bytes.data(), bytes.size(), 0);
    for (ssize_t i = 0; i < got; ++i) {
      if (bytes[static_cast<std::size_t>(i)] != byte_at(received_, seed_)) {
        return wrong(fmt::format("byte {} is wrong", received_));
      }
      ++received_;
    }
    return {};
  }

 private:
  const UniqueFd& from_;
  const UniqueFd& to_;
  unsigned seed_;
  std::size_t sent_ = 0, received_ = 0;
};

Seen check_integrity(Rig& rig) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  Stream there(ends->client, ends->server, 1);
  Stream back(ends->server, ends->client, 2);
  for (const auto deadline = Clock::now() + std::chrono::seconds(20);
       !there.done() || !back.done();) {
    ST_TRY(there.step());
    ST_TRY(back.step());
    if (Clock::now() > deadline) {
      return wrong("64 MiB did not arrive in 20 s");
    }
  }
  return std::string("64 MiB each way, every byte in its place");
}

// The sender has bytes on TCP that are not read when it may be fast again.
Seen check_order(Rig& rig) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  ST_TRY(rig.set_enabled(false));
  ST_TRY(send_all(ends->client, "first "));
  ST_TRY(rig.set_enabled(true));
  ST_TRY(send_all(ends->client, "second"));
  auto read = receive(ends->server, 12);
  ST_TRY(read);
  if (*read != "first second") {
    return wrong("read '" + *read + "'");
  }
  return std::string("bytes of TCP that wait are not overtaken");
}

Seen check_half_close(Rig& rig) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  ST_TRY(send_all(ends->client, "question"));
  shutdown(ends->client.get(), SHUT_WR);
  if (send(ends->client.get(), "x", 1, MSG_NOSIGNAL) >= 0 || errno != EPIPE) {
    return wrong("send() after shutdown() is no EPIPE");
  }
  auto question = receive(ends->server, 100);
  ST_TRY(question);
  ST_TRY(send_all(ends->server, "answer"));
  ends->server.reset();
  auto answer = receive(ends->client, 100);
  ST_TRY(answer);
  if (*question != "question" || *answer != "answer") {
    return wrong("read '" + *question + "' and '" + *answer + "'");
  }
  return std::string("end of file each way, EPIPE as on TCP");
}

Seen check_back_pressure(Rig& rig, bool& charges_reader) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  const std::string bytes(65536, 'b');
  std::size_t sent = 0;
  ssize_t count = 0;
  while (sent < kMostQueued &&
         (count = send(ends->client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL)) > 0) {
    if (sent == 0) {
      std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
      socklen_t size = sizeof(memory);
      getsockopt(ends->server.get(), SOL_SOCKET, SO_MEMINFO, memory.data(), &size);
      charges_reader = memory[SK_MEMINFO_RMEM_ALLOC] >= bytes.size() / 2;
    }
    sent += static_cast<std::size_t>(count);
  }
  if (count > 0 || errno != EAGAIN) {
    return wrong(fmt::format("{} bytes for a reader that sleeps, and no EAGAIN", sent));
  }
  auto read = receive(ends->server, sent);
  ST_TRY(read);
  if (read->size() != sent) {
    return wrong(fmt::format("{} of {} bytes arrived", read->size(), sent));
  }
  return fmt::format("EAGAIN after {} KiB; this kernel {} them to the reader", sent >> 10,
                     charges_reader ? "charges" : "does not charge");
}

Seen check_wake_up(Rig& rig) {
  for (const std::uint32_t edge : {0U, std::uint32_t{EPOLLET}}) {
    auto ends = rig.open_fast();
    ST_TRY(ends);
    const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{.events = EPOLLIN | edge, .data = {}};
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, ends->server.get(), &event);
    for (int i = 0; i < 100; ++i) {
      ST_TRY(send_all(ends->client, "ping"));
      if (epoll_wait(epoll.get(), &event, 1, 1000) != 1) {
        return wrong(edge == 0 ? "no event" : "no edge");
      }
      ST_TRY(receive(ends->server, 4));
    }
  }
  return std::string("epoll sees each message, by level and by edge");
}

Seen check_close(Rig& rig) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  ST_TRY(send_all(ends->client, "never read"));
  ends->server.reset();
  if (!becomes(ends->client, POLLIN)) {
    return wrong("a close with unread bytes is not seen");
  }
  char byte = 0;
  const ssize_t got = recv(ends->client.get(), &byte, 1, 0);
  if (got > 0 || (got < 0 && errno != ECONNRESET)) {
    return wrong(fmt::format("recv() says {}, errno {}", got, errno));
  }
  return std::string(got == 0 ? "end of file" : "ECONNRESET") + " after a close with unread bytes";
}

// Each call on an adopted socket, and what must be known right after it.
Seen check_sentinel(Rig& rig) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  const int fd = ends->server.get();
  fcntl(fd, F_SETFL, 0);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  auto marked = rig.look(ends->server);
  ST_TRY(marked);
  int off = 0;
  int on = 1;
  ioctl(ends->client.get(), FIONBIO, &off);
  ioctl(ends->client.get(), FIONBIO, &on);
  auto marked_too = rig.look(ends->client);
  ST_TRY(marked_too);
  if (*marked != ST_FAST_MARKED || *marked_too != ST_FAST_MARKED) {
    return wrong("a socket that was made blocking is not marked");
  }
  const auto expect = [&rig](const char* call, st_fast_reason reason) -> Result<void> {
    auto seen = rig.take_demotion();
    ST_TRY(seen);
    return *seen == reason ? Result<void>() : wrong(std::string(call) + " was not seen");
  };
  int waiting = 0;
  ioctl(fd, FIONREAD, &waiting);
  ST_TRY(expect("FIONREAD", ST_FAST_FIONREAD));
  int pipes[2] = {-1, -1};
  if (pipe2(pipes, O_NONBLOCK | O_CLOEXEC) == 0) {
    const UniqueFd reading(pipes[0]);
    const UniqueFd writing(pipes[1]);
    (void)splice(fd, nullptr, writing.get(), nullptr, 4096, SPLICE_F_NONBLOCK);
  }
  ST_TRY(expect("splice", ST_FAST_SPLICE));
  (void)syscall(SYS_io_uring_setup, 0, nullptr);
  ST_TRY(expect("io_uring_setup", ST_FAST_IO_URING));
  return std::string("splice, FIONREAD, io_uring and O_NONBLOCK cleared are seen before they run");
}

void add(Report& report, const char* name, const std::function<Seen()>& check) {
  const auto begin = Clock::now();
  const Seen seen = check();
  report.checks.push_back(
      {.name = name,
       .passed = static_cast<bool>(seen),
       .detail = seen ? *seen : seen.error().message,
       .milliseconds = std::chrono::duration<double, std::milli>(Clock::now() - begin).count()});
}

}  // namespace

Result<Report> run(const Places& places) {
  auto made = Rig::make(places);
  ST_TRY(made);
  Rig& rig = **made;
  ST_TRY(rig.prepare(kConnections));
  Report report;
  add(report, "integrity", [&] { return check_integrity(rig); });
  add(report, "order", [&] { return check_order(rig); });
  add(report, "half_close", [&] { return check_half_close(rig); });
  add(report, "back_pressure", [&] { return check_back_pressure(rig, report.charges_reader); });
  add(report, "wake_up", [&] { return check_wake_up(rig); });
  add(report, "close_unread", [&] { return check_close(rig); });
  add(report, "sentinel", [&] { return check_sentinel(rig); });
  return report;
}

}  // namespace sidetrack::selftest
