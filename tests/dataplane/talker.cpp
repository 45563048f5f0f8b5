// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/talker.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

namespace sidetrack::lab {

Talker::Talker(int fd, std::uint64_t sends, std::uint64_t expects)
    : fd_(fd), sends_(sends), expects_(expects), random_(static_cast<unsigned>(sends)) {
  thread_ = std::thread([this] { run(); });
}

Talker::~Talker() {
  if (thread_.joinable()) {
    finish();
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
  }
}

void Talker::stop() {
  stopped_ = true;
  thread_.join();
}

void Talker::run() {
  while (!stopped_ && (!ended_ || !finished_)) {
    if (finish_ && begin_ == end_ && !std::exchange(finished_, true)) {
      ::shutdown(fd_, SHUT_WR);
    }
    pollfd wanted{fd_, static_cast<short>((ended_ ? 0 : POLLIN) | (finished_ ? 0 : POLLOUT)), 0};
    (void)::poll(&wanted, 1, 20);
    if (!ended_ && (wanted.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      read_some();
    }
    if ((wanted.revents & POLLOUT) != 0 && !finished_) {
      send_some();
    }
  }
}

void Talker::read_some() {
  const std::size_t size = 1 + random_() % in_.size();
  const ssize_t count = ::recv(fd_, in_.data(), size, 0);
  if (count <= 0) {
    if (count == 0 || errno != EAGAIN) {
      note_error(count == 0 ? 0 : errno);
      ended_ = true;
      finished_ = finished_ || count < 0;
    }
    return;
  }
  const auto got = static_cast<std::size_t>(count);
  expects_.fill(std::span(wanted_.data(), got));
  intact_ = intact_ && std::memcmp(wanted_.data(), in_.data(), got) == 0;
  received_ += got;
}

void Talker::send_some() {
  if (begin_ == end_) {
    begin_ = 0;
    end_ = 1 + random_() % (random_() % 4 == 0 ? out_.size() : 2000);
    sends_.fill(std::span(out_.data(), end_));
  }
  const ssize_t count = ::send(fd_, out_.data() + begin_, end_ - begin_, MSG_NOSIGNAL);
  if (count > 0) {
    begin_ += static_cast<std::size_t>(count);
    sent_ += static_cast<std::uint64_t>(count);
  } else if (errno != EAGAIN) {
    note_error(errno);
    finished_ = true;
    finish_ = true;
  }
}

void Talker::note_error(int error_number) {
  if (error_number_ == 0) {
    error_number_ = error_number;
  }
}

bool both_receive(const Talker& a, const Talker& b, std::uint64_t more) {
  const std::uint64_t a_then = a.received() + more;
  const std::uint64_t b_then = b.received() + more;
  return eventually(2 * kPatience,
                    [&] { return a.received() >= a_then && b.received() >= b_then; });
}

void expect_all_arrived(const Talker& client, const Talker& server) {
  EXPECT_TRUE(eventually(kPatience, [&] { return client.ended() && server.ended(); }));
  EXPECT_TRUE(client.intact());
  EXPECT_TRUE(server.intact());
  EXPECT_EQ(client.error_number(), 0);
  EXPECT_EQ(server.error_number(), 0);
  EXPECT_EQ(server.received(), client.sent());
  EXPECT_EQ(client.received(), server.sent());
}

}  // namespace sidetrack::lab
