// SPDX-License-Identifier: Apache-2.0
// When the agent asks for a listener of an external engine to be put under watch, and what its cell
// says meanwhile. The listeners are real ones of this process.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "agent/main/external_engine.h"
#include "sidetrack/log/log.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::agent {
namespace {

constexpr std::uint64_t kSecond = ST_HEARTBEAT_STALE_NS;

class WatchedListenerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    socket_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    socklen_t size = sizeof(address_);
    ASSERT_NO_FATAL_FAILURE(bind_and_listen());
    ASSERT_EQ(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address_), &size), 0);
    engine_.v4 = {.address = policy::parse_address("127.0.0.1").value(),
                  .port = ntohs(address_.sin_port)};
    const auto listeners = list_listeners();
    ASSERT_TRUE(listeners) << listeners.error().message;
    const auto own = std::find_if(listeners->begin(), listeners->end(), [&](const auto& listener) {
      return listens_on(listener, engine_.v4);
    });
    ASSERT_NE(own, listeners->end());
    cgroup_id_ = own->cgroup_id;
    cookie_ = own->cookie;
  }
  void bind_and_listen() {
    ASSERT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address_), sizeof(address_)), 0);
    ASSERT_EQ(::listen(socket_.get(), 1), 0);
  }
  ExternalWatch make_watch() {
    return {engine_, cgroup_id_, &cell_, [this](std::uint64_t cookie) -> Result<void> {
              const std::lock_guard lock(mutex_);
              asked_.push_back(cookie);
              changed_.notify_all();
              if (fails_) {
                return make_error(ErrorCode::kIo, why_);
              }
              return {};
            }};
  }
  // Looks once a second, until it was asked so many times or many seconds have passed.
  std::size_t asked_after(ExternalWatch& watch, std::size_t times) {
    std::unique_lock lock(mutex_);
    for (int i = 0; i < 100 && asked_.size() < times; ++i) {
      lock.unlock();
      watch.look(now_ += kSecond);
      lock.lock();
      changed_.wait_for(lock, std::chrono::milliseconds(20),
                        [&] { return asked_.size() >= times; });
    }
    return asked_.size();
  }
  // Looks so many times at the most, at this moment, until it was asked so many times.
  std::size_t looked(ExternalWatch& watch, std::size_t times, int looks) {
    std::unique_lock lock(mutex_);
    for (int i = 0; i < looks && asked_.size() < times; ++i) {
      lock.unlock();
      watch.look(now_);
      lock.lock();
      changed_.wait_for(lock, std::chrono::milliseconds(20),
                        [&] { return asked_.size() >= times; });
    }
    return asked_.size();
  }
  static std::size_t count(const std::string& text, const std::string& word) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) {
      ++found;
    }
    return found;
  }

  UniqueFd socket_;
  sockaddr_in address_{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  ExternalEngine engine_;
  std::uint64_t cgroup_id_ = 0;
  std::uint64_t cookie_ = 0;
  volatile st_engine cell_{};
  std::uint64_t now_ = 100 * kSecond;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Below: under `mutex_`.
  std::vector<std::uint64_t> asked_;
  bool fails_ = false;
  std::string why_ = "the kernel had no memory";
};

TEST_F(WatchedListenerTest, asks_once_where_the_kernel_does_not_refuse) {
  ExternalWatch watch = make_watch();
  EXPECT_EQ(asked_after(watch, 2), 1U);
  EXPECT_EQ(asked_, std::vector<std::uint64_t>{cookie_});
  EXPECT_EQ(cell_.beat_ns, now_) << "it looks itself meanwhile";
}

TEST_F(WatchedListenerTest, asks_again_after_a_failure_but_not_at_every_look) {
  fails_ = true;
  ExternalWatch watch = make_watch();
  const std::uint64_t begun = now_ + kSecond;
  EXPECT_EQ(asked_after(watch, 2), 2U);
  EXPECT_GE(now_ - begun, 5 * kSecond);
  {
    const std::lock_guard lock(mutex_);
    fails_ = false;
  }
  EXPECT_EQ(asked_after(watch, 3), 3U);
  EXPECT_EQ(asked_after(watch, 4), 3U);
}

TEST_F(WatchedListenerTest, asks_ever_more_seldom_and_says_what_is_new) {
  fails_ = true;
  ExternalWatch watch = make_watch();
  testing::internal::CaptureStderr();
  start_log(LogLevel::kInfo, LogFormat::kText);
  ASSERT_EQ(asked_after(watch, 1), 1U);
  std::size_t times = 1;
  for (const std::uint64_t pause : {5U, 10U, 20U, 40U, 80U, 160U, 300U, 300U}) {
    std::unique_lock lock(mutex_);
    why_ = times < 4 ? "the kernel had no memory" : "no room";
    lock.unlock();
    // The failure has been taken notice of when nothing is asked for any more.
    const std::uint64_t asked_at = now_;
    now_ = asked_at + pause * kSecond - kSecond - 1;
    EXPECT_EQ(looked(watch, times + 1, 3), times) << pause;
    now_ = asked_at + pause * kSecond;
    ASSERT_EQ(looked(watch, times + 1, 100), times + 1) << pause;
    ++times;
  }
  looked(watch, times + 1, 3);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(count(said, "watch_failed"), 2U) << said;
  EXPECT_EQ(count(said, "no room"), 1U) << said;
  EXPECT_EQ(count(said, "walk_failed"), 0U) << said;
}

// As before 6.12: for ever good, its loss would be seen by nobody.
TEST_F(WatchedListenerTest, beats_at_every_look_where_the_kernel_does_not_watch) {
  fails_ = true;
  ExternalWatch watch = make_watch();
  for (std::size_t times = 1; times <= 3; ++times) {
    EXPECT_EQ(asked_after(watch, times), times);
    watch.look(now_ += kSecond);
    EXPECT_EQ(cell_.beat_ns, now_);
    EXPECT_EQ(cell_.listener_cookie_v4, cookie_);
    EXPECT_STREQ(watch.state(), "up") << watch.problem();
  }
  socket_.reset();
  watch.look(now_ += kSecond);
  EXPECT_EQ(cell_.beat_ns, 0U);
  EXPECT_EQ(cell_.listener_cookie_v4, 0U);
  EXPECT_STREQ(watch.state(), "down");
}

// sockops takes it out of `watched` at any moment of a look, and then out of the cell.
TEST_F(WatchedListenerTest, leaves_no_cookie_that_nobody_would_take_away) {
  ExternalWatch watch = make_watch();
  for (int round = 0; round < 300; ++round) {
    cell_.listener_cookie_v4 = 0;
    cell_.watched[0] = cookie_;
    std::atomic<bool> begun = false;
    std::thread closing([&] {
      begun.wait(false);
      const auto since = std::chrono::steady_clock::now();
      while (std::chrono::steady_clock::now() - since < std::chrono::microseconds(round)) {
      }
      cell_.watched[0] = 0;
      std::atomic_thread_fence(std::memory_order_seq_cst);
      if (cell_.listener_cookie_v4 == cookie_) {
        cell_.listener_cookie_v4 = 0;
      }
    });
    begun = true;
    begun.notify_all();
    watch.look(now_ += kSecond);
    closing.join();
    ASSERT_TRUE(cell_.listener_cookie_v4 == 0 || cell_.beat_ns == now_) << round;
  }
}

TEST_F(WatchedListenerTest, needs_no_look_where_the_kernel_watches) {
  ExternalWatch watch = make_watch();
  cell_.watched[0] = cookie_;
  watch.look(now_ += kSecond);
  EXPECT_EQ(cell_.beat_ns, ST_BEAT_NOT_NEEDED);
}

// The socket is the same, its cookie too.
TEST_F(WatchedListenerTest, forgets_what_does_not_listen_any_more) {
  ExternalWatch watch = make_watch();
  EXPECT_EQ(asked_after(watch, 1), 1U);
  ASSERT_EQ(::shutdown(socket_.get(), SHUT_RDWR), 0);
  watch.look(now_ += kSecond);
  EXPECT_EQ(cell_.listener_cookie_v4, 0U);
  ASSERT_NO_FATAL_FAILURE(bind_and_listen());
  EXPECT_EQ(asked_after(watch, 2), 2U);
  EXPECT_EQ(cell_.listener_cookie_v4, cookie_);
}

TEST_F(WatchedListenerTest, does_not_take_for_there_what_is_closing) {
  ExternalWatch watch = make_watch();
  watch.look(now_ += kSecond);
  EXPECT_STREQ(watch.state(), "up");
  watch.look(now_ += kSecond, cookie_);
  EXPECT_STREQ(watch.state(), "down");
  EXPECT_EQ(cell_.listener_cookie_v4, 0U);
}

}  // namespace
}  // namespace sidetrack::agent
