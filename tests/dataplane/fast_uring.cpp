// SPDX-License-Identifier: Apache-2.0
// Reading and writing by io_uring.
#include "tests/dataplane/fast_cases.h"

#ifdef ST_HAS_URING
#include <fmt/format.h>
#include <liburing.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

namespace sidetrack::lab {
namespace {

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

}  // namespace

std::optional<FastList::Case> talks_by_uring() {
  return FastList::Case{"io_uring", by_uring, "request 199"};
}

}  // namespace sidetrack::lab
#else
namespace sidetrack::lab {

std::optional<FastList::Case> talks_by_uring() {
  return std::nullopt;
}

}  // namespace sidetrack::lab
#endif
