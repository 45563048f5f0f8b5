// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "sidetrack/wire/framing.h"

namespace sidetrack::wire {
namespace {

struct Pair {
  UniqueFd a;
  UniqueFd b;
};

Pair make_pair_of_sockets() {
  std::array<int, 2> fds{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::size_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

std::vector<UniqueFd> nulls(std::size_t count) {
  std::vector<UniqueFd> fds;
  for (std::size_t i = 0; i < count; ++i) {
    fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  return fds;
}

bool is_dev_null(int fd) {
  struct stat a {};
  struct stat b {};
  return ::fstat(fd, &a) == 0 && ::stat("/dev/null", &b) == 0 && a.st_rdev == b.st_rdev;
}

// Sends `bytes` as they are, with the descriptors on the first of them.
void send_raw(int socket, std::string bytes, const std::vector<UniqueFd>& fds = {}) {
  alignas(cmsghdr) std::array<char, 512> control{};
  iovec part{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    for (std::size_t i = 0; i < fds.size(); ++i) {
      const int number = fds[i].get();
      std::memcpy(CMSG_DATA(header) + i * sizeof number, &number, sizeof number);
    }
  }
  ASSERT_EQ(::sendmsg(socket, &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

std::string header_of(std::size_t size) {
  return {static_cast<char>(size >> 24U), static_cast<char>(size >> 16U),
          static_cast<char>(size >> 8U), static_cast<char>(size)};
}

TEST(Framing, carries_bodies_and_descriptors_in_order) {
  const std::size_t before = open_files();
  {
    const Pair pair = make_pair_of_sockets();
    FrameWriter writer;
    ASSERT_TRUE(writer.push("one", nulls(1)));
    ASSERT_TRUE(writer.push(""));
    ASSERT_TRUE(writer.push("three", nulls(8)));
    ASSERT_TRUE(writer.flush(pair.a.get()));
    EXPECT_TRUE(writer.empty());
    EXPECT_EQ(writer.queued_bytes(), 0U);

    FrameReader reader;
    const auto received = reader.read(pair.b.get());
    ASSERT_TRUE(received);
    ASSERT_EQ(received->frames.size(), 3U);
    EXPECT_EQ(received->frames[0].body, "one");
    ASSERT_EQ(received->frames[0].fds.size(), 1U);
    EXPECT_TRUE(is_dev_null(received->frames[0].fds[0].get()));
    EXPECT_EQ(::fcntl(received->frames[0].fds[0].get(), F_GETFD), FD_CLOEXEC);
    EXPECT_TRUE(received->frames[1].fds.empty());
    EXPECT_EQ(received->frames[2].fds.size(), 8U);
    EXPECT_FALSE(received->closed);
  }
  EXPECT_EQ(open_files(), before);
}

TEST(Framing, reads_byte_by_byte_with_descriptors_on_the_first) {
  const Pair pair = make_pair_of_sockets();
  const std::string bytes = header_of(5) + "hello";
  FrameReader reader;
  std::vector<Frame> frames;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    send_raw(pair.a.get(), bytes.substr(i, 1), i == 0 ? nulls(2) : nulls(0));
    auto received = reader.read(pair.b.get());
    ASSERT_TRUE(received);
    std::move(received->frames.begin(), received->frames.end(), std::back_inserter(frames));
  }
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(frames[0].body, "hello");
  EXPECT_EQ(frames[0].fds.size(), 2U);
}

TEST(Framing, writes_a_large_frame_in_parts_with_its_descriptors_once) {
  const std::size_t before = open_files();
  const Pair pair = make_pair_of_sockets();
  FrameWriter writer;
  const std::string large(kMaxFrameBytes, 'x');
  ASSERT_TRUE(writer.push(large, nulls(1)));
  ASSERT_TRUE(writer.push("next", nulls(1)));
  FrameReader reader;
  std::vector<Frame> frames;
  int rounds = 0;
  for (; frames.size() < 2 && rounds < 1000; ++rounds) {
    ASSERT_TRUE(writer.flush(pair.a.get()));
    auto received = reader.read(pair.b.get());
    ASSERT_TRUE(received);
    std::move(received->frames.begin(), received->frames.end(), std::back_inserter(frames));
  }
  ASSERT_EQ(frames.size(), 2U);
  EXPECT_GT(rounds, 1) << "the socket took it all at once: nothing was tested";
  EXPECT_EQ(frames[0].body, large);
  EXPECT_EQ(frames[0].fds.size(), 1U);
  EXPECT_EQ(frames[1].body, "next");
  EXPECT_EQ(frames[1].fds.size(), 1U);
  EXPECT_EQ(open_files(), before + 4);
}

TEST(Framing, bounds_the_queue_and_keeps_what_was_queued) {
  FrameWriter writer(20);
  ASSERT_TRUE(writer.push("12345678"));
  EXPECT_EQ(writer.queued_bytes(), 12U);
  EXPECT_EQ(writer.push("12345").error().code, ErrorCode::kFull);
  EXPECT_EQ(writer.queued_bytes(), 12U);
  EXPECT_TRUE(writer.push("1234"));
  EXPECT_EQ(writer.push(std::string(kMaxFrameBytes + 1, 'x')).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(FrameWriter().push("x", nulls(9)).error().code, ErrorCode::kInvalid);
}

TEST(Framing, refuses_a_length_over_the_limit_and_stays_failed) {
  const Pair pair = make_pair_of_sockets();
  send_raw(pair.a.get(), header_of(2) + "ok" + header_of(kMaxFrameBytes + 1));
  FrameReader reader;
  const auto first = reader.read(pair.b.get());
  ASSERT_TRUE(first);
  ASSERT_EQ(first->frames.size(), 1U);
  EXPECT_EQ(reader.read(pair.b.get()).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(reader.read(pair.b.get()).error().code, ErrorCode::kInvalid);
}

TEST(Framing, refuses_too_many_descriptors_and_leaks_none) {
  const std::size_t before = open_files();
  {
    const Pair pair = make_pair_of_sockets();
    send_raw(pair.a.get(), header_of(1) + "x", nulls(9));
    FrameReader reader;
    const auto received = reader.read(pair.b.get());
    ASSERT_FALSE(received);
    EXPECT_EQ(received.error().code, ErrorCode::kInvalid);
  }
  EXPECT_EQ(open_files(), before);
}

TEST(Framing, refuses_descriptors_that_add_up_over_a_frame) {
  const Pair pair = make_pair_of_sockets();
  send_raw(pair.a.get(), header_of(2), nulls(5));
  send_raw(pair.a.get(), "x", nulls(5));
  FrameReader reader;
  EXPECT_EQ(reader.read(pair.b.get()).error().code, ErrorCode::kInvalid);
}

TEST(Framing, reports_the_end_after_the_last_frame) {
  Pair pair = make_pair_of_sockets();
  send_raw(pair.a.get(), header_of(1) + "x" + header_of(9));
  pair.a.reset();
  FrameReader reader;
  const auto received = reader.read(pair.b.get());
  ASSERT_TRUE(received);
  EXPECT_EQ(received->frames.size(), 1U);
  EXPECT_TRUE(received->closed);
}

TEST(Framing, takes_a_bounded_number_of_frames_at_once) {
  const Pair pair = make_pair_of_sockets();
  FrameWriter writer;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(writer.push("x"));
  }
  ASSERT_TRUE(writer.flush(pair.a.get()));
  FrameReader reader;
  EXPECT_EQ(reader.read(pair.b.get())->frames.size(), 64U);
  EXPECT_EQ(reader.read(pair.b.get())->frames.size(), 36U);
}

TEST(Framing, flush_to_a_closed_peer_is_an_error_without_a_signal) {
  Pair pair = make_pair_of_sockets();
  pair.b.reset();
  FrameWriter writer;
  ASSERT_TRUE(writer.push("x", nulls(1)));
  EXPECT_FALSE(writer.flush(pair.a.get()));
}

}  // namespace
}  // namespace sidetrack::wire
