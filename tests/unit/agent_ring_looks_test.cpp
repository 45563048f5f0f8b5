// SPDX-License-Identifier: Apache-2.0
// When a pod counts as looked at for an io_uring: namespaces are numbers, the search is a map.
#include <gtest/gtest.h>

#include "agent/main/ring_looks.h"

namespace sidetrack::agent {
namespace {

constexpr std::uint64_t kPod = 7001;
constexpr std::uint64_t kOther = 7002;

class RingLooksTest : public ::testing::Test {
 protected:
  RingLooks::News look(const std::set<std::uint64_t>& pods) {
    return looks_.look(
        pods,
        [this](std::uint64_t pod) {
          const auto place = places_.find(pod);
          return place == places_.end() ? std::nullopt : std::optional(place->second);
        },
        now_);
  }

  RingLooks::Clock::time_point now_{std::chrono::hours(1)};

  std::map<std::uint64_t, RingLooks::Place> places_{{kPod, {.netns = 1, .pod_uid = "u1"}},
                                                    {kOther, {.netns = 2, .pod_uid = ""}}};
  Result<pods::RingHolders> holders_ = pods::RingHolders{};
  std::vector<pods::RingsWanted> searches_;
  RingLooks looks_{[this](const pods::RingsWanted& wanted) {
    searches_.push_back(wanted);
    return holders_;
  }};
};

TEST_F(RingLooksTest, each_pod_is_looked_at_once) {
  holders_->found = {1};
  const auto news = look({kPod, kOther});
  EXPECT_EQ(news.with_ring, std::vector<std::uint64_t>{kPod});
  EXPECT_TRUE(news.any);
  EXPECT_EQ(searches_.at(0), (pods::RingsWanted{{1, "u1"}, {2, ""}}));
  EXPECT_TRUE(looks_.has_ring(kPod));
  EXPECT_TRUE(looks_.has_looked_at(kOther));
  EXPECT_FALSE(looks_.has_ring(kOther));
  EXPECT_FALSE(look({kPod, kOther}).any);
  EXPECT_EQ(searches_.size(), 1U);
}

TEST_F(RingLooksTest, a_pod_whose_namespace_is_not_known_yet_is_looked_at_when_it_is) {
  const auto place = places_.extract(kPod);
  look({kPod, kOther});
  EXPECT_FALSE(looks_.has_looked_at(kPod));
  places_[kPod] = place.mapped();
  holders_->found = {1};
  EXPECT_EQ(look({kPod, kOther}).with_ring, std::vector<std::uint64_t>{kPod});
  EXPECT_EQ(searches_.back(), (pods::RingsWanted{{1, "u1"}})) << "the other one is known";
}

TEST_F(RingLooksTest, a_search_that_fails_is_made_again) {
  holders_ = make_error(ErrorCode::kIo, "list /proc: too many open files");
  EXPECT_FALSE(look({kPod}).any);
  EXPECT_FALSE(looks_.has_looked_at(kPod));
  holders_ = pods::RingHolders{.found = {1}, .unseen = {}};
  EXPECT_EQ(look({kPod}).with_ring, std::vector<std::uint64_t>{kPod});
}

TEST_F(RingLooksTest, a_pod_whose_processes_cannot_be_seen_is_not_looked_at) {
  holders_->unseen[1] = "list /proc/10/fd: permission denied";
  const auto news = look({kPod, kOther});
  EXPECT_TRUE(news.with_ring.empty());
  EXPECT_FALSE(looks_.has_looked_at(kPod));
  EXPECT_TRUE(looks_.has_looked_at(kOther));
  holders_->unseen.clear();
  now_ += RingLooks::kAgain;
  EXPECT_TRUE(look({kPod, kOther}).any);
  EXPECT_TRUE(looks_.has_looked_at(kPod));
}

TEST_F(RingLooksTest, a_pod_whose_processes_cannot_be_seen_is_searched_for_now_and_then_only) {
  holders_->unseen[1] = "list /proc/10/fd: permission denied";
  look({kPod});
  now_ += RingLooks::kAgain - std::chrono::milliseconds(1);
  look({kPod});
  EXPECT_EQ(searches_.size(), 1U);
  look({kPod, kOther});
  EXPECT_EQ(searches_.size(), 2U) << "a new one is looked at at once";
  EXPECT_TRUE(looks_.has_looked_at(kOther));
  now_ += std::chrono::milliseconds(1);
  look({kPod, kOther});
  EXPECT_EQ(searches_.size(), 2U) << "it was looked for with the new one";
  now_ += RingLooks::kAgain;
  look({kPod, kOther});
  EXPECT_EQ(searches_.size(), 3U);
}

TEST_F(RingLooksTest, a_pod_that_is_not_watched_any_more_is_looked_at_anew) {
  holders_->found = {1};
  look({kPod});
  look({});
  EXPECT_FALSE(looks_.has_looked_at(kPod));
  EXPECT_FALSE(looks_.has_ring(kPod));
  holders_->found.clear();
  EXPECT_TRUE(look({kPod}).any);
  EXPECT_FALSE(looks_.has_ring(kPod));
}

}  // namespace
}  // namespace sidetrack::agent
