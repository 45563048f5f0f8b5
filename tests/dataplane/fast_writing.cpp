// SPDX-License-Identifier: Apache-2.0
// The ways to write.
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "tests/dataplane/fast_cases.h"
#include "tests/dataplane/fast_scenarios.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

// `write_some` has what is left of the pattern and writes as much of it as it likes.
template <typename Write>
std::string stream_by(Ends& ends, std::size_t length, Write write_some) {
  std::string bytes(length, '\0');
  Pattern(kStreamSeed).fill(bytes);
  Digest digest;
  std::vector<char> in(65536);
  const auto deadline = Clock::now() + kPatience;
  for (std::size_t sent = 0; digest.length() < length && Clock::now() < deadline;) {
    const ssize_t count =
        sent < length ? write_some(ends.client.get(), std::string_view(bytes).substr(sent)) : 0;
    sent += count > 0 ? static_cast<std::size_t>(count) : 0;
    pollfd wanted{ends.server.get(), POLLIN, 0};
    (void)::poll(&wanted, 1, count > 0 ? 0 : 10);
    const ssize_t got = ::recv(ends.server.get(), in.data(), in.size(), 0);
    digest.add(std::span(in.data(), got > 0 ? static_cast<std::size_t>(got) : 0));
  }
  return fmt::format("{} {}", digest.length(), digest.hex());
}

std::string scattered(Ends& ends) {
  return stream_by(ends, 300'000, [](int fd, std::string_view left) {
    std::array<iovec, 5> parts{};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const std::string_view part = left.substr(std::min(left.size(), i * 700), 700);
      parts[i] = {const_cast<char*>(part.data()), part.size()};
    }
    return ::writev(fd, parts.data(), static_cast<int>(parts.size()));
  });
}

// The last byte without MSG_MORE.
std::string more_to_come(Ends& ends) {
  return stream_by(ends, 100'000, [](int fd, std::string_view left) {
    const std::size_t size = std::min<std::size_t>(left.size(), 333);
    return ::send(fd, left.data(), size, MSG_NOSIGNAL | (size < left.size() ? MSG_MORE : 0));
  });
}

std::string corked(Ends& ends) {
  set_option(ends.client, IPPROTO_TCP, TCP_CORK, 1);
  const std::string said = words({send_text(ends.client, "one "), send_text(ends.client, "two "),
                                  send_text(ends.client, "three")});
  set_option(ends.client, IPPROTO_TCP, TCP_CORK, 0);
  std::string got;
  EXPECT_TRUE(eventually(kPatience, [&] {
    char in[64];
    const ssize_t count = ::recv(ends.server.get(), in, sizeof(in), 0);
    got.append(in, count > 0 ? static_cast<std::size_t>(count) : 0);
    return got.size() >= 13;
  }));
  return said + " " + got;
}

UniqueFd file_of(std::string_view bytes) {
  UniqueFd file(::memfd_create("bytes", MFD_CLOEXEC));
  EXPECT_EQ(::write(file.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  return file;
}

std::string sent_from_a_file(Ends& ends) {
  constexpr std::size_t kLength = 1'000'000;
  std::string bytes(kLength, '\0');
  Pattern(kStreamSeed).fill(bytes);
  const UniqueFd file = file_of(bytes);
  return stream_by(ends, kLength, [&](int fd, std::string_view left) {
    off_t offset = static_cast<off_t>(kLength - left.size());
    return ::sendfile(fd, file.get(), &offset, 100'000);
  });
}

std::string spliced_from_a_pipe(Ends& ends) {
  int pipes[2] = {-1, -1};
  EXPECT_EQ(::pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
  const UniqueFd out(pipes[0]);
  const UniqueFd in(pipes[1]);
  std::size_t inside = 0;
  return stream_by(ends, 500'000, [&](int fd, std::string_view left) {
    const ssize_t filled = ::write(in.get(), left.data() + inside, left.size() - inside);
    inside += filled > 0 ? static_cast<std::size_t>(filled) : 0;
    const ssize_t moved = ::splice(out.get(), nullptr, fd, nullptr, inside, SPLICE_F_NONBLOCK);
    inside -= moved > 0 ? static_cast<std::size_t>(moved) : 0;
    return moved;
  });
}

// One send() of more than any queue holds is taken in part.
std::string all_at_once(Ends& ends) {
  return stream_by(ends, 6'000'000, [](int fd, std::string_view left) {
    return ::send(fd, left.data(), left.size(), MSG_NOSIGNAL);
  });
}

// TCP may have promised all of a small one, or all but some of a larger one: ADR 0014.
auto buffers_of(int send, int receive) {
  return [=](Ends& ends) {
    set_option(ends.client, SOL_SOCKET, SO_SNDBUF, send);
    set_option(ends.server, SOL_SOCKET, SO_RCVBUF, receive);
    return stream(ends.client, ends.server, {.length = 200'000, .write_bytes = 2000, .writes = 5});
  };
}

// Each record is one send(): none is torn by the other writer's.
std::string two_writers(Ends& ends) {
  constexpr int kRecords = 2000;
  const auto write_all = [&](char letter) {
    const std::string record(40, letter);
    for (int i = 0; i < kRecords; ++i) {
      pollfd wanted{ends.client.get(), POLLOUT, 0};
      (void)::poll(&wanted, 1, static_cast<int>(kPatience.count()));
      i -= send_text(ends.client, record) == "sent" ? 0 : 1;
    }
  };
  std::thread one(write_all, 'a');
  std::thread other(write_all, 'b');
  std::string got;
  while (got.size() < std::size_t{2} * kRecords * 40) {
    const std::string part = receive_text(ends.server, 65536);
    if (part.front() != '\'') {
      break;
    }
    got += part.substr(1, part.size() - 2);
  }
  one.join();
  other.join();
  for (std::size_t i = 0; i < got.size(); i += 40) {
    if (got.substr(i, 40) != std::string(40, got[i])) {
      return "torn";
    }
  }
  return std::to_string(got.size());
}

std::string send_urgent(const Ends& ends) {
  std::string said = send_text(ends.client, "abc");
  EXPECT_EQ(::send(ends.client.get(), "!", 1, MSG_OOB), 1);
  return said + send_text(ends.client, "def");
}

std::string urgent(Ends& ends) {
  const std::string said = send_urgent(ends);
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'a'");
  EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  return words({said, receive_text(ends.server, 9),
                receive_text(ends.server, 1, MSG_OOB, milliseconds(0)),
                receive_text(ends.server, 9, 0, milliseconds(0))});
}

std::string urgent_in_line(Ends& ends) {
  const std::string said = send_urgent(ends);
  return words({said, scenarios::receive_all(ends.server, 7)});
}

}  // namespace

std::vector<FastList::Case> writings() {
  return {
      {"a byte at a time", streams({.length = 4'000, .write_bytes = 1, .writes = 64}), both(4'000)},
      {"a byte at a time, more than are read",
       streams({.length = 4'000, .write_bytes = 1, .read_bytes = 7, .writes = 9}), both(4'000)},
      {"writev", scattered, whole(300'000)},
      {"MSG_MORE", more_to_come, whole(100'000)},
      {"TCP_CORK", corked, "sent sent sent one two three"},
      {"sendfile", sent_from_a_file, whole(1'000'000)},
      {"splice from a pipe", spliced_from_a_pipe, whole(500'000)},
      {"one large send()", all_at_once, whole(6'000'000)},
      {"small buffers", buffers_of(10'000, 40'000), whole(200'000), {}, 1, "fp_window"},
      {"a small send buffer", buffers_of(10'000, 200'000), whole(200'000)},
      {"two writers", two_writers, "160000"},
  };
}

FastList::Case urgent_byte() {
  return {"MSG_OOB", urgent, "sentsent 'abc' '!' 'def'", "sentsent 'abc!def' EAGAIN EAGAIN"};
}

FastList::Case urgent_byte_of_a_relay() {
  return {"MSG_OOB", urgent_in_line, "sentsent abc!def"};
}

}  // namespace sidetrack::lab
