// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/fast_scenarios.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <future>

#include "sidetrack/abi/fast.h"

namespace sidetrack::lab::scenarios {
namespace {

constexpr milliseconds kNothingComes{100};
// What takes microseconds and must not be waited for as long as kPatience where it never comes.
const milliseconds kSoon = scaled(milliseconds(2000));

// The timer for what was not acknowledged has run out, and again.
bool backs_off(const UniqueFd& fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  EXPECT_EQ(::getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  return info.tcpi_backoff >= 2;
}

// Until `most` bytes, or until nobody takes more; how many that were.
constexpr std::size_t kMuch = 16U << 20U;
std::size_t send_much(const UniqueFd& fd, std::size_t most) {
  const std::string part(65536, 'p');
  std::size_t sent = 0;
  while (sent < most) {
    const ssize_t count = ::send(fd.get(), part.data(), part.size(), MSG_NOSIGNAL);
    if (count < 0) {
      EXPECT_EQ(errno, EAGAIN);
      break;
    }
    sent += static_cast<std::size_t>(count);
  }
  return sent;
}

// Reads so many; the longest time that it had to wait for some.
Clock::duration read_count(const UniqueFd& fd, std::size_t count) {
  std::vector<char> bytes(1U << 20U);
  auto longest = Clock::duration::zero();
  while (count > 0) {
    const auto begin = Clock::now();
    pollfd wanted{fd.get(), POLLIN, 0};
    const int ready = ::poll(&wanted, 1, static_cast<int>(kPatience.count()));
    longest = std::max(longest, Clock::now() - begin);
    const ssize_t got = ::recv(fd.get(), bytes.data(), bytes.size(), 0);
    if (ready != 1 || got <= 0) {
      ADD_FAILURE() << count << " bytes are missing";
      break;
    }
    count -= static_cast<std::size_t>(got);
  }
  return longest;
}

void set_nonblocking(const UniqueFd& fd) {
  ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
}

}  // namespace

std::string receive_all(const UniqueFd& fd, std::size_t count) {
  std::string bytes;
  std::array<char, 65536> buffer{};
  (void)eventually(kSoon, [&] {
    const ssize_t got = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    bytes.append(buffer.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes.size() >= count;
  });
  return bytes;
}

std::string fill_a_sleeping_reader(Ends& ends, std::size_t message, std::uint64_t most) {
  const std::string bytes(message, 'b');
  std::uint64_t sent = 0;
  while (sent < most) {
    const ssize_t count = ::send(ends.client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0) {
      return ::strerrorname_np(errno);
    }
    sent += static_cast<std::uint64_t>(count);
  }
  return "no end";
}

std::string send_many_short_messages(Ends& ends) {
  set_option(ends.client, SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20);
  const std::uint64_t by_tcp = sent_by_tcp(ends.client);
  std::string sent;
  while (sent.size() < 4UL * ST_FAST_MESSAGES) {
    const char byte = static_cast<char>('a' + sent.size() % 23);
    if (::send(ends.client.get(), &byte, 1, MSG_NOSIGNAL) != 1) {
      break;  // TCP's buffers are full
    }
    sent += byte;
  }
  EXPECT_GT(sent.size(), 2UL * ST_FAST_MESSAGES);
  int queued = -1;
  EXPECT_TRUE(eventually(kPatience, [&] {
    return ::ioctl(ends.client.get(), SIOCOUTQ, &queued) == 0 && queued == 0;
  })) << queued;
  const std::uint64_t past_tcp = sent.size() - (sent_by_tcp(ends.client) - by_tcp);
  const bool whole = receive_all(ends.server, sent.size()) == sent;
  return std::string(past_tcp <= ST_FAST_MESSAGES + 1 ? "few" : "many") +
         (whole ? " whole" : " torn");
}

std::string make_anew(Ends& ends) {
  EXPECT_EQ(send_text(ends.server, "OLDSECRET"), "sent");
  EXPECT_EQ(receive_text(ends.client, 1, MSG_PEEK), "'O'");
  const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
  EXPECT_EQ(::connect(ends.client.get(), &nowhere, sizeof(nowhere)), 0);
  return receive_text(ends.client, 99, 0, kNothingComes);
}

std::string set_rcvlowat_late(Ends& ends) {
  set_option(ends.server, SOL_SOCKET, SO_RCVLOWAT, 100);
  EXPECT_EQ(send_text(ends.client, "01234"), "sent");
  pollfd wanted{ends.server.get(), POLLIN, 0};
  return std::to_string(::poll(&wanted, 1, static_cast<int>(kNothingComes.count())));
}

std::string set_peek_off_late(Ends& ends) {
  set_option(ends.server, SOL_SOCKET, SO_PEEK_OFF, 0);
  EXPECT_EQ(send_text(ends.client, "abcdef"), "sent");
  const std::string said = receive_text(ends.server, 3, MSG_PEEK);
  return said + receive_text(ends.server, 3, MSG_PEEK);
}

std::string set_zerocopy_late(Ends& ends) {
  set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);
  const std::string bytes(10000, 'z');
  const ssize_t sent =
      ::send(ends.client.get(), bytes.data(), bytes.size(), MSG_ZEROCOPY | MSG_NOSIGNAL);
  const std::string said = std::to_string(sent) + " " + receive_text(ends.server, 3);
  // The completion waits in the error queue.
  pollfd wanted{ends.client.get(), 0, 0};
  return said + std::to_string(::poll(&wanted, 1, static_cast<int>(kSoon.count())));
}

std::string ask_how_much_waits(Ends& ends) {
  int waiting = -1;
  std::string said = send_text(ends.client, "12345");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'1'");
  EXPECT_EQ(::ioctl(ends.server.get(), FIONREAD, &waiting), 0);
  EXPECT_LE(waiting, 5);
  said += receive_text(ends.server, 9);
  said += send_text(ends.client, "678");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'6'");
  EXPECT_TRUE(eventually(kPatience, [&] {
    EXPECT_EQ(::ioctl(ends.server.get(), FIONREAD, &waiting), 0);
    EXPECT_LE(waiting, 3);
    return waiting == 3;
  }));
  return said + receive_text(ends.server, 9);
}

std::string read_into_faulting_memory(Ends& ends) {
  const FaultingPage page;
  std::string said = send_text(ends.client, "hello");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'h'");
  auto reader = std::async(std::launch::async, [&] {
    return ::recv(ends.server.get(), page.memory(), FaultingPage::kSize, MSG_DONTWAIT);
  });
  page.wait_for_fault();
  auto sender = std::async(std::launch::async, [&] { return send_text(ends.client, "world"); });
  said += sender.wait_for(kSoon) == std::future_status::ready ? " free " : " held ";
  page.fill();
  said += sender.get();
  // One recv() may return both messages or one: what counts are the bytes, in order.
  const ssize_t first = reader.get();
  const std::string begin(page.memory(), first > 0 ? static_cast<std::size_t>(first) : 0);
  return said + begin + receive_all(ends.server, 10 - begin.size());
}

std::string kill_the_sender_of_a_faulting_reader(Ends& ends) {
  const FaultingPage page;
  EXPECT_EQ(send_text(ends.client, "hello"), "sent");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'h'");
  auto reader = std::async(std::launch::async, [&] {
    return ::recv(ends.server.get(), page.memory(), FaultingPage::kSize, MSG_DONTWAIT);
  });
  page.wait_for_fault();
  std::array<int, 2> pipes{-1, -1};
  EXPECT_EQ(::pipe2(pipes.data(), O_CLOEXEC), 0);
  const UniqueFd told(pipes[0]);
  UniqueFd tell(pipes[1]);
  const pid_t sender = ::fork();
  if (sender == 0) {
    for (;;) {
      (void)!::write(tell.get(), "s", 1);
      (void)::send(ends.client.get(), "world", 5, MSG_NOSIGNAL);
    }
  }
  tell.reset();
  // By the second it is in its first send(), or has been.
  std::array<char, 2> begun{};
  EXPECT_EQ(::read(told.get(), begun.data(), 1), 1);
  pollfd more{told.get(), POLLIN, 0};
  (void)::poll(&more, 1, static_cast<int>(kSoon.count()));
  EXPECT_EQ(::kill(sender, SIGKILL), 0);
  const bool ended = eventually(kSoon, [&] { return ::waitpid(sender, nullptr, WNOHANG) != 0; });
  page.fill();
  (void)reader.get();
  if (!ended) {
    EXPECT_EQ(::waitpid(sender, nullptr, 0), sender);
  }
  return ended ? "ended" : "held";
}

std::string send_behind_unread_bytes(Ends& ends, const Step& past_tcp) {
  std::string said = send_text(ends.client, "first ");
  EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  past_tcp(ends);
  said += send_text(ends.client, "second");
  return said + receive_all(ends.server, 12);
}

std::string receive_in_flight(Ends& ends, const PutIn& put_in, const Step& by_tcp) {
  HeldReceive early(ends.server);
  put_in(ends, early);
  std::string said = send_text(ends.client, "first ");
  by_tcp(ends);
  said += send_text(ends.client, "second");
  EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  const bool held = early.held();
  const std::string begin = early.finish();
  said += begin + receive_all(ends.server, 12 - begin.size());
  return held ? said : "missed";
}

std::string sleep_in_receive(Ends& ends, const Step& past_tcp) {
  // A byte every 20 ms, for longer than it takes until bytes skip TCP.
  constexpr std::size_t kBytes = 75;
  std::atomic<pid_t> thread{0};
  auto reader = std::async(std::launch::async, [&] {
    thread = ::gettid();
    std::array<char, kBytes> bytes{};
    return ::recv(ends.server.get(), bytes.data(), bytes.size(), MSG_WAITALL);
  });
  EXPECT_TRUE(eventually(kPatience, [&] { return thread != 0 && waits_in_receive(thread); }));
  set_nonblocking(ends.client);
  set_nonblocking(ends.server);
  past_tcp(ends);
  for (std::size_t i = 0; i < kBytes; ++i) {
    EXPECT_EQ(send_text(ends.client, "x"), "sent");
    (void)reader.wait_for(milliseconds(20));
  }
  const bool woke = reader.wait_for(kSoon) == std::future_status::ready;
  ::shutdown(ends.server.get(), SHUT_RDWR);  // wakes it in any case
  return std::to_string(reader.get()) + (woke ? " woke" : " slept on");
}

std::string peek_across_a_switch(Ends& ends, const Step& by_tcp) {
  std::string said = send_text(ends.client, "HEA");
  said += receive_text(ends.server, 11, MSG_PEEK);
  by_tcp(ends);
  said += send_text(ends.client, "DER56789");
  said +=
      eventually(kSoon, [&] { return receive_text(ends.server, 11, MSG_PEEK) == "'HEADER56789'"; })
          ? " peeked "
          : " missed ";
  return said + receive_all(ends.server, 11);
}

std::string read_behind_a_full_buffer(Ends& ends, const Step& past_tcp, const Step& by_tcp) {
  set_option(ends.server, SOL_SOCKET, SO_RCVBUF, 262144);  // the kernel makes it no larger
  for (int round = 0; round < 5; ++round) {
    (void)read_count(ends.server, send_much(ends.client, kMuch));
  }
  past_tcp(ends);
  // If TCP took the last message above in part, this one goes by TCP unasked (docs/fast-path.md,
  // "One message that is not asked about"), and all behind it would find it unread.
  (void)read_count(ends.server, send_much(ends.client, 1));
  std::size_t sent = send_much(ends.client, kMuch);
  by_tcp(ends);
  sent += send_much(ends.client, kMuch / 8);
  EXPECT_TRUE(eventually(kPatience,
                         [&] { return is_acknowledged(ends.client) || backs_off(ends.client); }));
  return read_count(ends.server, sent) < scaled(milliseconds(300)) ? "soon" : "late";
}

std::string wait_for_an_answer(Ends& ends, const Step& first) {
  first(ends);
  std::atomic<pid_t> thread{0};
  auto reader = std::async(std::launch::async, [&]() -> std::string {
    thread = ::gettid();
    std::array<char, 64> bytes{};
    const ssize_t count = ::recv(ends.client.get(), bytes.data(), bytes.size(), 0);
    return count < 0 ? ::strerrorname_np(errno)
                     : "'" + std::string(bytes.data(), static_cast<std::size_t>(count)) + "'";
  });
  EXPECT_TRUE(eventually(kPatience, [&] { return thread != 0 && waits_in_receive(thread); }));
  EXPECT_EQ(::shutdown(ends.client.get(), SHUT_WR), 0);
  EXPECT_EQ(receive_text(ends.server, 9), "EOF");
  EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  EXPECT_EQ(send_text(ends.server, "answer"), "sent");
  return reader.get();
}

void fill_both_queues(const UniqueFd& sender) {
  set_option(sender, IPPROTO_TCP, TCP_NODELAY, 1);
  for (int i = 0; i < kMoreThanWait; ++i) {
    EXPECT_EQ(send_text(sender, "m"), "sent");
  }
  EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(sender); }));
}

std::string read_until_end_is_known(const UniqueFd& reader) {
  std::array<char, 16384> bytes{};
  std::size_t read = 0;
  for (;;) {
    pollfd wanted{reader.get(), POLLIN | POLLRDHUP, 0};
    if (::poll(&wanted, 1, static_cast<int>(kPatience.count())) != 1) {
      return std::to_string(read) + " and no end";
    }
    const ssize_t got = ::recv(reader.get(), bytes.data(), bytes.size(), 0);
    if (got < 0 && errno != EAGAIN) {
      return std::to_string(read) + " " + ::strerrorname_np(errno);
    }
    read += got > 0 ? static_cast<std::size_t>(got) : 0;
    if (got == 0 || ((wanted.revents & (POLLRDHUP | POLLHUP)) != 0 && got < std::ssize(bytes))) {
      return std::to_string(read) + " end";
    }
  }
}

std::string splice_some(const UniqueFd& fd) {
  std::array<int, 2> pipes{-1, -1};
  EXPECT_EQ(::pipe2(pipes.data(), O_NONBLOCK | O_CLOEXEC), 0);
  const UniqueFd reading(pipes[0]);
  const UniqueFd writing(pipes[1]);
  const ssize_t count =
      ::splice(fd.get(), nullptr, writing.get(), nullptr, 4096, SPLICE_F_NONBLOCK);
  return count < 0 ? ::strerrorname_np(errno) : std::to_string(count);
}

}  // namespace sidetrack::lab::scenarios
