// SPDX-License-Identifier: Apache-2.0
// How a connection can end: each case says what the two applications see.
#include <fmt/format.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_cases.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

void abort_connection(UniqueFd& fd) {
  const linger abort{.l_onoff = 1, .l_linger = 0};
  EXPECT_EQ(::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)), 0);
  fd.reset();
}

// Sends until it cannot: EPIPE and ECONNRESET mean the same to an application, and TCP gives
// either.
std::string send_to_end(const UniqueFd& fd) {
  const auto deadline = Clock::now() + kPatience;
  const std::string bytes(4096, 'e');
  while (Clock::now() < deadline) {
    if (::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0) {
      continue;
    }
    if (errno != EAGAIN) {
      return errno == EPIPE || errno == ECONNRESET ? "over" : ::strerrorname_np(errno);
    }
    pollfd wanted{fd.get(), POLLOUT, 0};
    (void)::poll(&wanted, 1, poll_timeout(deadline));
  }
  return "no end";
}

// What `ss -K` does.
void destroy(const UniqueFd& fd) {
  const UniqueFd netns(::ioctl(fd.get(), SIOCGSKNS));
  const std::string own = fmt::format("sport = :{}", port_of(fd, getsockname));
  // Others may have the same port, to elsewhere. But getpeername() of a redirected one does not say
  // whom it is connected to.
  for (const std::string& filter :
       {fmt::format("{} and dport = :{}", own, port_of(fd, getpeername)), own}) {
    const auto done =
        run_command({.arguments = {"ss", "-KtH", filter},
                     .netns_path = fmt::format("/proc/{}/fd/{}", ::getpid(), netns.get())});
    ASSERT_TRUE(done && done->exit_status == 0);
    if (!done->output.empty()) {
      return;
    }
  }
  FAIL() << "ss found no socket: " << own;
}

// A process that has the socket instead of us, and runs `body` with it.
template <typename Body>
pid_t give_away(UniqueFd& fd, Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body(fd.get());
    for (;;) {
      ::pause();
    }
  }
  fd.reset();
  return child;
}

bool is_closed(const UniqueFd& fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  EXPECT_EQ(::getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  return info.tcpi_state == TCP_CLOSE;
}

// What one recv() gives; sets `end` when there was none.
std::string receive_bytes(const UniqueFd& fd, std::string& end) {
  pollfd wanted{fd.get(), POLLIN, 0};
  (void)::poll(&wanted, 1, static_cast<int>(kPatience.count()));
  std::string bytes(65536, '\0');
  const ssize_t got = ::recv(fd.get(), bytes.data(), bytes.size(), 0);
  if (got <= 0) {
    end = got == 0 ? "EOF" : ::strerrorname_np(errno);
  }
  bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return bytes;
}

void kill_hard(pid_t child) {
  EXPECT_EQ(::kill(child, SIGKILL), 0);
  EXPECT_EQ(::waitpid(child, nullptr, 0), child);
}

// `count` messages of `size` bytes of the pattern; waits for room.
void send_pattern(const UniqueFd& fd, int count, std::size_t size) {
  Pattern pattern(kStreamSeed);
  std::string message(size, '\0');
  for (int i = 0; i < count; ++i) {
    pattern.fill(message);
    pollfd wanted{fd.get(), POLLOUT, 0};
    EXPECT_EQ(::poll(&wanted, 1, static_cast<int>(kPatience.count())), 1);
    EXPECT_EQ(send_text(fd, message), "sent");
  }
}

// What the reader says when all came.
std::string all_of(int count, std::size_t size) {
  return whole(static_cast<std::uint64_t>(count) * size) + " EOF";
}

std::string half_close_both_ways(Ends& ends) {
  std::string said;
  for (const auto& [from, to] :
       {std::pair{&ends.client, &ends.server}, std::pair{&ends.server, &ends.client}}) {
    said += send_text(*from, "last");
    EXPECT_EQ(::shutdown(from->get(), SHUT_WR), 0);
    // Once more when the reader has taken the FIN: by sequence numbers it has then read all.
    said += words({"", send_text(*from, "x"), receive_text(*to, 9), receive_text(*to, 9),
                   send_text(*from, "y"), receive_text(*to, 9), ""});
  }
  return said;
}

// The other direction goes on for long after a half-close.
std::string stream_after_half_close(Ends& ends) {
  EXPECT_EQ(::shutdown(ends.client.get(), SHUT_WR), 0);
  std::string said = words(
      {receive_text(ends.server, 9), stream(ends.server, ends.client, {.length = 1'000'000})});
  ends.server.reset();
  return words({said, receive_text(ends.client, 9)});
}

std::string stop_reading(Ends& ends) {
  std::string said = send_text(ends.client, "before");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'b'");
  EXPECT_EQ(::shutdown(ends.server.get(), SHUT_RD), 0);
  return words({said, receive_text(ends.server, 9), receive_text(ends.server, 9),
                send_text(ends.server, "answer"), receive_text(ends.client, 9)});
}

std::string close_with_unread(Ends& ends) {
  std::string said = send_text(ends.client, "never read");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'n'");
  ends.server.reset();
  return words({said, receive_text(ends.client, 9), send_to_end(ends.client)});
}

// The peer is gone when the queue is full: whoever waits for room must be told.
std::string close_on_a_full_queue(Ends& ends) {
  const std::string bytes(16384, 'f');
  while (::send(ends.client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0) {
  }
  EXPECT_EQ(errno, EAGAIN);
  ends.server.reset();
  return send_to_end(ends.client);
}

// SO_LINGER 0.
std::string abort_after_last_words(Ends& ends) {
  std::string said = send_text(ends.client, "last");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'l'");
  abort_connection(ends.client);
  EXPECT_TRUE(eventually(kPatience, [&] { return is_closed(ends.server); }));
  return words({said, receive_text(ends.server, 9), receive_text(ends.server, 9),
                receive_text(ends.server, 9), send_text(ends.server, "x")});
}

std::string abort_with_unread(Ends& ends) {
  std::string said = send_text(ends.server, "never read");
  EXPECT_EQ(receive_text(ends.client, 1, MSG_PEEK), "'n'");
  abort_connection(ends.client);
  return words({said, receive_text(ends.server, 9), send_text(ends.server, "x")});
}

std::string destroyed_by_the_administrator(Ends& ends) {
  std::string said = words({send_text(ends.client, "there"), send_text(ends.server, "back")});
  EXPECT_EQ(receive_text(ends.client, 1, MSG_PEEK), "'b'");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'t'");
  destroy(ends.client);
  for (const UniqueFd* fd : {&ends.client, &ends.server}) {
    EXPECT_TRUE(eventually(kPatience, [&] { return is_closed(*fd); }));
    said = words({said, receive_text(*fd, 9), receive_text(*fd, 9), receive_text(*fd, 9)});
  }
  return said;
}

// kill -9 of an application. Whatever it got out is whole, up to some byte.
std::string killed_after_last_words(Ends& ends) {
  send_pattern(ends.client, 30, 1000);
  kill_hard(give_away(ends.client, [](int) {}));
  return read_to_end(ends.server);
}

std::string killed_while_it_sends(Ends& ends) {
  std::string bytes(std::size_t{8} << 20U, '\0');
  Pattern(kStreamSeed).fill(bytes);
  const pid_t child = give_away(ends.client, [&](int fd) {
    for (std::size_t offset = 0;;) {
      const std::size_t size = std::min<std::size_t>(7000, bytes.size() - offset);
      const ssize_t sent = ::send(fd, bytes.data() + offset, size, MSG_NOSIGNAL);
      offset += sent > 0 ? static_cast<std::size_t>(sent) : 0;
    }
  });
  std::string got;
  std::string end;
  while (end.empty()) {
    const std::size_t before = got.size();
    got += receive_bytes(ends.server, end);
    if (before < 500'000 && got.size() >= 500'000) {
      kill_hard(child);
    }
  }
  return fmt::format("{} {}", bytes.compare(0, got.size(), got) == 0 ? "in order" : "torn", end);
}

std::string killed_while_it_reads(Ends& ends) {
  const pid_t child = give_away(ends.server, [](int fd) {
    char in[5000];
    for (;;) {
      (void)::recv(fd, in, sizeof(in), 0);
    }
  });
  const std::string bytes(5000, 'r');
  const auto deadline = Clock::now() + kPatience;
  for (std::size_t sent = 0; sent < 1'000'000 && Clock::now() < deadline;) {
    const ssize_t count = ::send(ends.client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    sent += count > 0 ? static_cast<std::size_t>(count) : 0;
  }
  kill_hard(child);
  return send_to_end(ends.client);
}

std::string peer_closes_while_we_send(Ends& ends) {
  std::string said;
  std::thread sender([&] { said = send_to_end(ends.client); });
  EXPECT_EQ(receive_text(ends.server, 1), "'e'");
  ends.server.reset();
  sender.join();
  return said;
}

}  // namespace

FastList::Case last_words(const char* name, int count, std::size_t size, int times) {
  const auto run = [=](Ends& ends) {
    send_pattern(ends.client, count, size);
    ends.client.reset();
    return read_to_end(ends.server);
  };
  return {name, run, all_of(count, size), {}, times};
}

std::vector<FastList::Case> endings() {
  constexpr int kMany = ST_FAST_MESSAGES + 88;  // more than fit past TCP: bytes in both queues
  const std::string over = "over";
  return {
      last_words("close right after a byte", 1, 1, 3),
      last_words("close right after many", kMany, 50, 3),
      {"half-close both ways", half_close_both_ways,
       "sent EPIPE 'last' EOF EPIPE EOF sent EPIPE 'last' EOF EPIPE EOF "},
      {"stream after a half-close",
       stream_after_half_close,
       "EOF " + whole(1'000'000) + " EOF",
       {},
       1,
       "fp_state"},
      {"SHUT_RD", stop_reading, "sent 'before' EOF sent 'answer'"},
      {"close with unread bytes", close_with_unread, "sent ECONNRESET over", "sent EOF over"},
      {"close on a full queue", close_on_a_full_queue, over},
      {"SO_LINGER 0 after last words", abort_after_last_words, "sent 'last' ECONNRESET EOF EPIPE"},
      {"SO_LINGER 0 with unread bytes", abort_with_unread, "sent ECONNRESET EPIPE"},
      {"SOCK_DESTROY", destroyed_by_the_administrator,
       "sent sent 'back' ECONNABORTED EOF 'there' ECONNRESET EOF"},
      {"kill -9 after last words", killed_after_last_words, all_of(30, 1000)},
      {"kill -9 while it sends", killed_while_it_sends, "in order EOF"},
      {"kill -9 while it reads", killed_while_it_reads, over},
      {"peer closes while we send", peer_closes_while_we_send, over, {}, 3}};
}

}  // namespace sidetrack::lab
