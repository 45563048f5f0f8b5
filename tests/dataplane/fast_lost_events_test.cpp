// SPDX-License-Identifier: Apache-2.0
// What the kernel tells the agent while the ring of events is full, the agent finds out by itself.
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/shared_fast_node.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint64_t kEvent = sizeof(st_event) + BPF_RINGBUF_HDR_SZ;
constexpr int kMoreThanFit = ST_EVENT_RING_BYTES / kEvent + 1000;

class FastLostEvents : public SharedFastNode {
 protected:
  static void make_blocking(const UniqueFd& fd) {
    ASSERT_EQ(::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) & ~O_NONBLOCK), 0);
  }
  // Each call is an event, as nobody remembers the one before.
  void fill_ring(const Ends& ends) {
    const KernelView kernel(sidetrack_->pin_dir());
    const std::uint64_t cookie = cookie_of(ends.client);
    for (int i = 0; i < kMoreThanFit; ++i) {
      make_blocking(ends.client);
      ST_ASSERT_OK(kernel.delete_row("st_marks", cookie));
    }
    ST_ASSERT_VALUE(const std::uint64_t waiting, kernel.waiting_in("st_events"));
    EXPECT_GE(waiting + kEvent, ST_EVENT_RING_BYTES) << "it is not full";
  }
};

TEST_F(FastLostEvents, a_socket_that_was_made_blocking_is_taken_out) {
  const Ends filler = open_fast();
  const Ends ends = open_fast();
  stop_agent();
  fill_ring(filler);
  make_blocking(ends.server);
  wake_agent();
  EXPECT_TRUE(eventually(kPatience, [&] { return !adopted(ends.server) && !adopted(ends.client); }))
      << sidetrack_->logs();
}

TEST_F(FastLostEvents, an_edge_triggered_reader_is_told_of_what_came_by_tcp) {
  constexpr int kMessages = ST_FAST_MESSAGES + 40;
  const std::string message(100, 'm');
  const Ends filler = open_fast();
  const Ends ends = open_fast();
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  ASSERT_EQ(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, ends.server.get(), &event), 0);
  // With this one before them the others skip TCP even while the agent is away.
  EXPECT_EQ(send_text(ends.client, message), "sent");
  stop_agent();
  fill_ring(filler);
  for (int i = 1; i < kMessages; ++i) {
    EXPECT_EQ(send_text(ends.client, message), "sent");
  }
  ASSERT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  wake_agent();
  std::size_t total = 0;
  std::vector<char> buffer(65536);
  while (total < kMessages * message.size() &&
         ::epoll_wait(epoll.get(), &event, 1, static_cast<int>(kPatience.count())) == 1) {
    const ssize_t got = ::recv(ends.server.get(), buffer.data(), buffer.size(), 0);
    ASSERT_LT(got, static_cast<ssize_t>(buffer.size())) << "not a short read";
    total += got > 0 ? static_cast<std::size_t>(got) : 0;
  }
  EXPECT_EQ(total, kMessages * message.size());
}

TEST_F(FastLostEvents, splice_on_bytes_that_skipped_tcp_ends_the_connection) {
  spoil();  // the server's pod is demoted
  const Ends filler = open_fast();
  const Ends ends = open_fast();
  EXPECT_EQ(send_text(ends.client, "past"), "sent");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'p'");
  stop_agent();
  fill_ring(filler);
  EXPECT_EQ(scenarios::splice_some(ends.server), "EAGAIN");
  wake_agent();
  EXPECT_EQ(receive_text(ends.client, 9), "ECONNRESET");
  EXPECT_EQ(receive_text(ends.server, 99), "'past'");
  EXPECT_EQ(receive_text(ends.server, 99), "ECONNABORTED");
}

}  // namespace
}  // namespace sidetrack::lab
