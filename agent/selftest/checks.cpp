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
#include <utility>
#include <vector>

#include "agent/selftest/rig.h"

namespace sidetrack::selftest {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kStreamBytes = 64 << 20;
constexpr std::chrono::seconds kStall{5};
constexpr unsigned kConnections = 12;          // that the checks below use
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
  [[nodiscard]] std::size_t received() const { return received_; }
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
  const std::uint64_t by_tcp = sent_by_tcp(ends->client) + sent_by_tcp(ends->server);
  Stream there(ends->client, ends->server, 1);
  Stream back(ends->server, ends->client, 2);
  // A machine may be slow; bytes that wait for each other wait for ever.
  std::size_t arrived = 0;
  for (auto deadline = Clock::now() + kStall; !there.done() || !back.done();) {
    ST_TRY(there.step());
    ST_TRY(back.step());
    if (const std::size_t now = there.received() + back.received(); now != arrived) {
      arrived = now;
      deadline = Clock::now() + kStall;
    }
    if (Clock::now() > deadline) {
      return wrong(fmt::format("after {} KiB nothing arrives any more", arrived >> 10));
    }
  }
  const std::uint64_t slow = sent_by_tcp(ends->client) + sent_by_tcp(ends->server) - by_tcp;
  if (slow > kStreamBytes) {
    return wrong(fmt::format("{} of 128 MiB used TCP", slow >> 20));
  }
  return fmt::format("64 MiB each way, every byte in its place, {} KiB of them by TCP", slow >> 10);
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

// Whether redirected bytes count in the reader's sk_rmem_alloc: the window is kept by it, or else
// by what was sent since the reader's queue was empty.
Result<bool> find_charge(Rig& rig, const Ends& ends, const std::string& bytes) {
  const std::uint64_t by_tcp = sent_by_tcp(ends.client);
  ST_TRY(send_all(ends.client, bytes));
  if (sent_by_tcp(ends.client) != by_tcp) {
    return wrong("the first message for an empty queue used TCP");
  }
  std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
  socklen_t size = sizeof(memory);
  if (getsockopt(ends.server.get(), SOL_SOCKET, SO_MEMINFO, memory.data(), &size) != 0) {
    return errno_error("read SO_MEMINFO", errno);
  }
  const bool charges = memory[SK_MEMINFO_RMEM_ALLOC] >= bytes.size() / 2;
  ST_TRY(rig.set_charges_reader(charges));
  return charges;
}

Seen check_back_pressure(Rig& rig, bool& charges_reader) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  const std::string bytes(32768, 'b');
  auto charges = find_charge(rig, *ends, bytes);
  ST_TRY(charges);
  charges_reader = *charges;
  std::size_t sent = bytes.size();
  ssize_t count = 0;
  while (sent < kMostQueued &&
         (count = send(ends->client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL)) > 0) {
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

// Each costs memory that no window sees, however short it is.
Seen check_short_messages(Rig& rig) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  const std::uint64_t by_tcp = sent_by_tcp(ends->client);
  std::string sent;
  while (sent.size() < 4 * ST_FAST_MESSAGES) {
    const char byte = byte_at(sent.size(), 3);
    if (send(ends->client.get(), &byte, 1, MSG_NOSIGNAL) != 1) {
      break;  // TCP's buffers are full
    }
    sent += byte;
  }
  const std::uint64_t fast = sent.size() - (sent_by_tcp(ends->client) - by_tcp);
  if (sent.size() <= 2 * ST_FAST_MESSAGES || fast > ST_FAST_MESSAGES + 1) {
    return wrong(fmt::format("{} of {} messages wait that skipped TCP", fast, sent.size()));
  }
  auto read = receive(ends->server, sent.size());
  ST_TRY(read);
  if (*read != sent) {
    return wrong("bytes are not in their places");
  }
  return fmt::format("{} of {} unread messages skipped TCP", fast, sent.size());
}

Seen check_wake_up(Rig& rig) {
  for (const std::uint32_t edge : {0U, std::uint32_t{EPOLLET}}) {
    auto ends = rig.open_fast();
    ST_TRY(ends);
    const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{.events = EPOLLIN | edge, .data = {}};
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, ends->server.get(), &event);
    const std::uint64_t by_tcp = sent_by_tcp(ends->client);
    for (int i = 0; i < 100; ++i) {
      ST_TRY(send_all(ends->client, "ping"));
      if (epoll_wait(epoll.get(), &event, 1, 1000) != 1) {
        return wrong(edge == 0 ? "no event" : "no edge");
      }
      ST_TRY(receive(ends->server, 4));
    }
    if (sent_by_tcp(ends->client) != by_tcp) {
      return wrong("the messages used TCP");
    }
  }
  return std::string("epoll sees each message, by level and by edge");
}

Seen check_close(Rig& rig) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  const std::uint64_t by_tcp = sent_by_tcp(ends->client);
  ST_TRY(send_all(ends->client, "never read"));
  if (sent_by_tcp(ends->client) != by_tcp) {
    return wrong("the message used TCP");
  }
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

// A reader that takes a short read for the last one once it knows of the end.
Result<std::size_t> read_until_end_is_known(const UniqueFd& fd) {
  std::array<char, 16384> bytes{};
  std::size_t read = 0;
  for (;;) {
    pollfd wanted{.fd = fd.get(), .events = POLLIN | POLLRDHUP, .revents = 0};
    if (poll(&wanted, 1, std::chrono::milliseconds(kStall).count()) != 1) {
      return wrong(fmt::format("no end after {} bytes", read));
    }
    const ssize_t got = recv(fd.get(), bytes.data(), bytes.size(), 0);
    if (got < 0 && errno != EAGAIN) {
      return errno_error("receive", errno);
    }
    read += got > 0 ? static_cast<std::size_t>(got) : 0;
    if (got == 0 || ((wanted.revents & POLLRDHUP) != 0 && got < std::ssize(bytes))) {
      return read;
    }
  }
}

// More than may wait past TCP; TCP has sent the five behind at once.
constexpr std::size_t kInBothQueues = ST_FAST_MESSAGES + 5;

Result<Ends> open_with_both_queues(Rig& rig) {
  auto ends = rig.open_fast();
  ST_TRY(ends);
  for (std::size_t i = 0; i < kInBothQueues; ++i) {
    ST_TRY(send_all(ends->client, "m"));
  }
  return ends;
}

Seen check_end(Rig& rig) {
  auto ends = open_with_both_queues(rig);
  ST_TRY(ends);
  ends->client.reset();
  auto read = read_until_end_is_known(ends->server);
  ST_TRY(read);
  if (*read != kInBothQueues) {
    return wrong(fmt::format("the end is known after {} of {} bytes", *read, kInBothQueues));
  }
  auto leaving = open_with_both_queues(rig);
  ST_TRY(leaving);
  leaving->client.reset();
  ST_TRY(rig.let_fins_go());
  if (!becomes(leaving->server, POLLRDHUP)) {
    return wrong("the end waits though its network namespace goes");
  }
  return std::string("not known before what skipped TCP is read, unless the sender's pod goes");
}

// From the call on, bytes go by TCP.
Result<void> expect_tcp(Rig& rig, const Ends& ends, const std::string& call) {
  auto fast = rig.is_fast(ends.client, ends.server);
  ST_TRY(fast);
  return *fast ? wrong("bytes skip TCP after " + call) : Result<void>();
}

// What the call does to the pod is known right after it.
Result<void> expect_demotion(Rig& rig, const Ends& ends, const std::string& call,
                             st_fast_reason reason, const std::function<void()>& run_call) {
  auto fast = rig.is_fast(ends.client, ends.server);
  ST_TRY(fast);
  if (!*fast) {
    return wrong("bytes use TCP before " + call);
  }
  run_call();
  ST_TRY(expect_tcp(rig, ends, call));
  auto seen = rig.take_demotion();
  ST_TRY(seen);
  return *seen == reason ? Result<void>() : wrong(call + " was not seen");
}

// The socket that was made blocking, even for a moment only, is marked.
Result<void> expect_mark(Rig& rig, const UniqueFd& fd, const char* call) {
  auto look = rig.look(fd);
  ST_TRY(look);
  return *look == ST_FAST_MARKED ? Result<void>() : wrong(std::string(call) + " was not seen");
}

void try_splice(int from) {
  int pipes[2] = {-1, -1};
  if (pipe2(pipes, O_NONBLOCK | O_CLOEXEC) == 0) {
    const UniqueFd reading(pipes[0]);
    const UniqueFd writing(pipes[1]);
    (void)splice(from, nullptr, writing.get(), nullptr, 4096, SPLICE_F_NONBLOCK);
  }
}

// Each call on an adopted socket.
Seen check_sentinel(Rig& rig, dataplane::Sentinel sentinel) {
  ST_TRY(rig.set_sentinel(sentinel));
  auto ends = rig.open_fast();
  ST_TRY(ends);
  const int fd = ends->server.get();
  ST_TRY(expect_demotion(rig, *ends, "FIONREAD", ST_FAST_FIONREAD, [fd] {
    int waiting = 0;
    ioctl(fd, FIONREAD, &waiting);
  }));
  ST_TRY(expect_demotion(rig, *ends, "splice", ST_FAST_SPLICE, [fd] { try_splice(fd); }));
  if (rig.has_io_uring()) {
    ST_TRY(expect_demotion(rig, *ends, "io_uring_setup", ST_FAST_IO_URING,
                           [] { (void)try_io_uring(); }));
  }
  auto fast = rig.is_fast(ends->client, ends->server);
  ST_TRY(fast);
  if (!*fast) {
    return wrong("bytes use TCP before fcntl");
  }
  fcntl(fd, F_SETFL, 0);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  ST_TRY(expect_mark(rig, ends->server, "fcntl that clears O_NONBLOCK"));
  ST_TRY(expect_tcp(rig, *ends, "fcntl that clears O_NONBLOCK"));
  int off = 0;
  int on = 1;
  ioctl(ends->client.get(), FIONBIO, &off);
  ioctl(ends->client.get(), FIONBIO, &on);
  ST_TRY(expect_mark(rig, ends->client, "FIONBIO that clears O_NONBLOCK"));
  return std::string("splice, FIONREAD, io_uring and O_NONBLOCK cleared end it before they run");
}

using NamedCheck = std::pair<const char*, std::function<Seen()>>;

void add(Report& report, const NamedCheck& check) {
  const auto begin = Clock::now();
  const Seen seen = check.second();
  report.checks.push_back(
      {.name = check.first,
       .passed = static_cast<bool>(seen),
       .detail = seen ? *seen : seen.error().message,
       .milliseconds = std::chrono::duration<double, std::milli>(Clock::now() - begin).count()});
}

}  // namespace

Result<Report> run(const Places& places) {
  auto made = Rig::make(places);
  ST_TRY(made);
  Rig& rig = **made;
  Report report;
  if (const std::string& problem = rig.fast_path_problem(); !problem.empty()) {
    report.checks.push_back({.name = "programs", .passed = false, .detail = problem});
    return report;
  }
  ST_TRY(rig.prepare(kConnections));
  std::vector<NamedCheck> checks = {
      {"integrity", [&] { return check_integrity(rig); }},
      {"order", [&] { return check_order(rig); }},
      {"half_close", [&] { return check_half_close(rig); }},
      {"back_pressure", [&] { return check_back_pressure(rig, report.charges_reader); }},
      {"short_messages", [&] { return check_short_messages(rig); }},
      {"wake_up", [&] { return check_wake_up(rig); }},
      {"close_unread", [&] { return check_close(rig); }},
      {"end_behind", [&] { return check_end(rig); }},
      {"sentinel", [&] { return check_sentinel(rig, dataplane::Sentinel::kTracepoint); }}};
  if (rig.has_fentry()) {
    checks.emplace_back("sentinel_fentry",
                        [&] { return check_sentinel(rig, dataplane::Sentinel::kFentry); });
  }
  for (const NamedCheck& check : checks) {
    if (places.is_over && places.is_over()) {
      return make_error(ErrorCode::kBusy, "ended by a signal");
    }
    add(report, check);
  }
  return report;
}

}  // namespace sidetrack::selftest
