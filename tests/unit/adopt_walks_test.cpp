// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <vector>

#include "agent/adopt/walks.h"

namespace sidetrack::adopt {
namespace {

using namespace std::chrono_literals;

// A walk that waits until it is let go, as one does that comes to a socket whose lock is held.
class WalksTest : public ::testing::Test {
 protected:
  Result<void> walk(std::uint64_t cookie) {
    std::unique_lock lock(mutex_);
    walked_.push_back(cookie);
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    return {};
  }
  bool walked(const std::vector<std::uint64_t>& cookies) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 10s, [&] { return walked_ == cookies; });
  }
  void let_go() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::uint64_t> walked_;
  bool open_ = false;
};

TEST_F(WalksTest, nobody_waits_for_one_and_they_come_one_after_the_other) {
  Walks walks([this](std::uint64_t cookie) { return walk(cookie); });
  walks.start({}, 1);
  walks.start({}, 2);
  EXPECT_TRUE(walked({1}));
  let_go();
  EXPECT_TRUE(walked({1, 2}));
}

TEST_F(WalksTest, one_that_does_not_end_does_not_keep_the_agent_from_ending) {
  auto walks = std::make_unique<Walks>([this](std::uint64_t cookie) { return walk(cookie); });
  walks->start({}, 1);
  ASSERT_TRUE(walked({1}));
  auto ended = std::async(std::launch::async, [&] { walks.reset(); });
  EXPECT_EQ(ended.wait_for(5s), std::future_status::ready);
  let_go();
}

}  // namespace
}  // namespace sidetrack::adopt
