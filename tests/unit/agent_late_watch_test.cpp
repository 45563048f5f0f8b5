// SPDX-License-Identifier: Apache-2.0
// LateWatch: which pods count as captured too late, in seconds of a clock of the test's.
#include <gtest/gtest.h>

#include "agent/main/event_watch.h"
#include "agent/main/late_watch.h"

namespace sidetrack::agent {
namespace {

using namespace std::chrono_literals;
using Clock = LateWatch::Clock;

constexpr Clock::time_point kBoot{1h};

class Late : public testing::Test {
 protected:
  Late() {
    pod_.intent.namespace_name = "shop";
    pod_.intent.name = "web";
    pod_.intent.state = policy::PodState::kEnrol;
    pod_.netns_cookie = 7;
    pod_.row = st_pod{};
    pod_.captured_at = kBoot + 90s;
    // The agent that comes after the reboot.
    watch_.on_enrolled({"shop"}, kBoot + 89s);
  }
  std::vector<LatePod> look() {
    return watch_.look({pod_}, [this](const reconcile::PodStatus&) { return started_; });
  }

  LateWatch watch_{{"shop"}};  // enrolled by the agent before
  reconcile::PodStatus pod_;
  std::optional<Clock::time_point> started_ = kBoot + 27s;
};

TEST_F(Late, is_a_pod_that_ran_before_its_row_was_there) {
  const auto found = look();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].name, "web");
  EXPECT_EQ(found[0].late, 63s);
  EXPECT_EQ(watch_.late(7), 63s);
  EXPECT_EQ(watch_.total(), 1U);
}

TEST_F(Late, is_told_once) {
  (void)look();
  EXPECT_TRUE(look().empty());
  EXPECT_EQ(watch_.late(7), 63s) << "and shown as long as it is there";
  EXPECT_EQ(watch_.total(), 1U);
}

TEST_F(Late, is_not_told_again_when_its_row_was_lost_and_is_written_again) {
  (void)look();
  pod_.row.reset();
  EXPECT_TRUE(look().empty());
  EXPECT_EQ(watch_.late(7), 63s);
  pod_.row = st_pod{};
  pod_.captured_at = kBoot + 300s;
  EXPECT_TRUE(look().empty());
  EXPECT_EQ(watch_.late(7), 63s);
  EXPECT_EQ(watch_.total(), 1U);
}

TEST_F(Late, is_none_whose_row_came_first) {
  started_ = kBoot + 90s - 40ms;  // as the kernel's clock has it
  EXPECT_TRUE(look().empty());
  EXPECT_FALSE(watch_.late(7).has_value());
}

TEST_F(Late, is_a_pod_that_ran_for_a_moment) {
  started_ = kBoot + 90s - 200ms;
  EXPECT_EQ(look().at(0).late, 200ms);
}

TEST_F(Late, is_none_whose_row_is_an_earlier_agents) {
  pod_.captured_at.reset();
  EXPECT_TRUE(look().empty());
}

TEST_F(Late, waits_until_a_process_was_seen) {
  started_.reset();
  EXPECT_TRUE(look().empty());
  started_ = kBoot + 27s;
  EXPECT_EQ(look().size(), 1U);
}

TEST_F(Late, counts_from_when_the_pod_was_wanted) {
  pod_.wanted_since = kBoot + 90s;
  EXPECT_TRUE(look().empty());
}

TEST_F(Late, is_none_of_a_namespace_that_was_not_enrolled_before) {
  LateWatch fresh{{}};
  fresh.on_enrolled({"shop"}, kBoot + 90s);
  EXPECT_TRUE(fresh.look({pod_}, [this](const auto&) { return started_; }).empty());
}

TEST_F(Late, counts_from_when_the_namespace_was_enrolled_again) {
  watch_.on_enrolled({}, kBoot + 89s);
  watch_.on_enrolled({"shop"}, kBoot + 90s);
  EXPECT_TRUE(look().empty());
}

TEST_F(Late, is_forgotten_with_the_pod) {
  (void)look();
  (void)watch_.look({}, nullptr);
  EXPECT_FALSE(watch_.late(7).has_value());
}

TEST_F(Late, is_an_event_of_the_pod_that_names_the_seconds) {
  kube::ObjectSet objects;
  objects.pods["shop/web"].metadata.uid = "u1";
  const auto event = EventWatch::captured_late(look().at(0), objects);
  EXPECT_EQ(event.kind, "Pod");
  EXPECT_EQ(event.namespace_name, "shop");
  EXPECT_EQ(event.uid, "u1");
  EXPECT_EQ(event.reason, "SidetrackCapturedLate");
  EXPECT_NE(event.message.find("63.0 s"), std::string::npos);
}

}  // namespace
}  // namespace sidetrack::agent
