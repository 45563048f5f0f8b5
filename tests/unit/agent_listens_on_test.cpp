// SPDX-License-Identifier: Apache-2.0
// Whether a connection to an address ends at a listener, whether somebody takes it there, and what
// the watch makes of it.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "agent/main/external_engine.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::agent {
namespace {

struct Row {
  const char* name;
  const char* listener;
  bool v6_only;
  const char* address;
  bool listens;
};

class ListensOn : public ::testing::TestWithParam<Row> {};

TEST_P(ListensOn, is_as_the_kernel_would_decide) {
  const NodeListener listener{.address = policy::parse_address(GetParam().listener).value(),
                              .port = 15001,
                              .v6_only = GetParam().v6_only};
  EXPECT_EQ(listens_on(listener, {.address = policy::parse_address(GetParam().address).value(),
                                  .port = 15001}),
            GetParam().listens);
}

INSTANTIATE_TEST_SUITE_P(All, ListensOn,
                         ::testing::Values(Row{"its_own_v4", "10.1.2.3", false, "10.1.2.3", true},
                                           Row{"another_v4", "10.1.2.4", false, "10.1.2.3", false},
                                           Row{"any_v4", "0.0.0.0", false, "10.1.2.3", true},
                                           Row{"any_v4_not_for_v6", "0.0.0.0", false, "fd00::1",
                                               false},
                                           Row{"its_own_v6", "fd00::1", false, "fd00::1", true},
                                           Row{"any_v6", "::", false, "fd00::1", true},
                                           Row{"any_v6_also_for_v4", "::", false, "10.1.2.3", true},
                                           Row{"any_v6_only", "::", true, "10.1.2.3", false},
                                           Row{"any_v6_only_for_v6", "::", true, "fd00::1", true}),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(ListensOnPort, needs_the_same_port) {
  const st_addr address = policy::parse_address("10.1.2.3").value();
  EXPECT_FALSE(
      listens_on({.address = address, .port = 15002}, {.address = address, .port = 15001}));
}

constexpr std::uint64_t kSecond = ST_HEARTBEAT_STALE_NS;

TEST(AcceptQueueTest, is_stuck_when_some_have_waited_for_a_second_and_none_was_accepted) {
  AcceptQueue queue;
  EXPECT_FALSE(queue.look(100, 0, 5 * kSecond));
  EXPECT_FALSE(queue.look(101, 1, 6 * kSecond)) << "it may have come just now";
  EXPECT_FALSE(queue.look(107, 7, 7 * kSecond - 1));
  EXPECT_TRUE(queue.look(108, 8, 7 * kSecond));
  EXPECT_TRUE(queue.look(108, 8, 9 * kSecond));
  EXPECT_FALSE(queue.look(108, 0, 10 * kSecond));
}

TEST(AcceptQueueTest, is_stuck_until_all_who_waited_were_accepted) {
  AcceptQueue queue;
  EXPECT_FALSE(queue.look(101, 1, kSecond));
  EXPECT_TRUE(queue.look(108, 8, 2 * kSecond));
  EXPECT_TRUE(queue.look(108, 7, 2 * kSecond + 1)) << "one was accepted";
  EXPECT_TRUE(queue.look(112, 5, 2 * kSecond + 2));
  EXPECT_FALSE(queue.look(112, 4, 2 * kSecond + 3)) << "those who wait came later";
  EXPECT_FALSE(queue.look(112, 4, 3 * kSecond + 2));
  EXPECT_TRUE(queue.look(112, 4, 3 * kSecond + 3));
}

TEST(AcceptQueueTest, is_not_stuck_while_it_moves_however_long_it_is) {
  AcceptQueue queue;
  for (std::uint64_t i = 0; i < 10; ++i) {
    EXPECT_FALSE(queue.look(100 + i, 50, i * kSecond / 2)) << "as many come as are accepted";
    EXPECT_FALSE(queue.look(100 + i, 50, i * kSecond / 2 + 1)) << "and none meanwhile";
  }
}

// What arrives between the two readings counts as waiting only.
TEST(AcceptQueueTest, is_not_misled_by_what_arrives_during_a_look) {
  AcceptQueue queue;
  EXPECT_FALSE(queue.look(100, 5, kSecond));
  EXPECT_FALSE(queue.look(100, 8, kSecond + 1));
  EXPECT_TRUE(queue.look(103, 8, 2 * kSecond)) << "95 accepted at first, 95 now";
}

TEST(AcceptQueueTest, is_never_stuck_when_nobody_was_seen_to_arrive) {
  AcceptQueue queue;
  EXPECT_FALSE(queue.look(0, 3, kSecond));
  EXPECT_FALSE(queue.look(0, 3, 9 * kSecond));
}

// A real listener of this process, as the watch finds it.
class ExternalWatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    ASSERT_TRUE(socket_.valid());
    ASSERT_EQ(::bind(socket_.get(), generic, size), 0);
    ASSERT_EQ(::listen(socket_.get(), 8), 0);
    ASSERT_EQ(::getsockname(socket_.get(), generic, &size), 0);
    engine_.v4 = {.address = policy::parse_address("127.0.0.1").value(),
                  .port = ntohs(address.sin_port)};
    const auto listeners = list_listeners();
    ASSERT_TRUE(listeners.has_value()) << listeners.error().message;
    const auto found = std::find_if(listeners->begin(), listeners->end(), [&](const auto& other) {
      return listens_on(other, engine_.v4);
    });
    ASSERT_NE(found, listeners->end());
    listener_ = *found;
  }
  // The watch with a kernel that refuses, as those before 6.12 do; it counts how often it is asked.
  ExternalWatch watch_that_is_refused() {
    return {engine_, listener_.cgroup_id, &cell_, [this](std::uint64_t cookie) -> Result<void> {
              EXPECT_EQ(cookie, listener_.cookie);
              ++asked_;
              return errno_error("watch", EINVAL);
            }};
  }

  UniqueFd socket_{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  ExternalEngine engine_;
  NodeListener listener_;
  st_engine cell_{};
  std::atomic<int> asked_ = 0;
};

TEST_F(ExternalWatchTest, probes_a_listener_that_the_kernel_does_not_watch) {
  ExternalWatch watch = watch_that_is_refused();
  for (std::uint64_t look = 1; look <= 10; ++look) {
    watch.look(look * kSecond);
    EXPECT_EQ(cell_.beat_ns, look * kSecond) << "it would be used for ever";
    EXPECT_EQ(cell_.listener_cookie_v4, listener_.cookie);
    EXPECT_STREQ(watch.state(), "up") << watch.problem();
  }
}

TEST_F(ExternalWatchTest, asks_the_kernel_once) {
  if (listener_.cgroup_id == 0) {
    GTEST_SKIP() << "this kernel does not say in which cgroup a socket was made";
  }
  ExternalWatch watch = watch_that_is_refused();
  watch.look(kSecond);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (asked_ == 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  watch.look(2 * kSecond);
  watch.look(3 * kSecond);
  EXPECT_EQ(asked_, 1);
  EXPECT_EQ(cell_.beat_ns, 3 * kSecond);
}

TEST_F(ExternalWatchTest, needs_no_look_at_one_that_the_kernel_watches) {
  ExternalWatch watch = watch_that_is_refused();
  cell_.watched[0] = listener_.cookie;
  watch.look(kSecond);
  EXPECT_EQ(cell_.beat_ns, ST_BEAT_NOT_NEEDED);
}

TEST_F(ExternalWatchTest, does_not_beat_for_one_that_is_gone) {
  ExternalWatch watch = watch_that_is_refused();
  watch.look(kSecond);
  socket_.reset();
  watch.look(2 * kSecond);
  EXPECT_EQ(cell_.beat_ns, 0U);
  EXPECT_EQ(cell_.listener_cookie_v4, 0U);
  EXPECT_STREQ(watch.state(), "down");
}

}  // namespace
}  // namespace sidetrack::agent
