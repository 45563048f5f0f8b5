// SPDX-License-Identifier: Apache-2.0
// CniDoor against a node of the test's making.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <map>
#include <vector>

#include "agent/main/cni_door.h"

namespace sidetrack::agent {
namespace {

using namespace std::chrono_literals;

constexpr const char* kUid = "11111111-0000-0000-0000-000000000000";

class Door : public testing::Test {
 protected:
  explicit Door(std::chrono::milliseconds timeout = 2s) : timeout_(timeout) {}
  // Asks as the plugin does. Answers go to `answers_`.
  void add(const std::string& container_id, const std::string& uid = kUid) {
    door_.add({.container_id = container_id,
               .ifname = "eth0",
               .pod_namespace = "shop",
               .pod_name = "web",
               .pod_uid = uid,
               .netns = UniqueFd(memfd_create("netns", MFD_CLOEXEC))},
              [this](Result<void> answer) { answers_.push_back(std::move(answer)); });
  }

  const std::chrono::milliseconds timeout_;
  CniDoor::Clock::time_point now_{1h};
  Standing standing_ = Standing::kPending;
  std::optional<std::string> known_uid_ = kUid;
  int changes_ = 0;
  std::vector<UniqueFd> left_;
  std::optional<CniDoor::Clock::time_point> due_;  // as wake_at() says
  std::vector<Result<void>> answers_;
  pods::NetnsTable table_{{}};
  CniDoor door_{table_,
                {.timeout = timeout_,
                 .now = [this] { return now_; },
                 .standing = [this](const std::string&, const std::string&,
                                    const std::string&) { return standing_; },
                 .uid_of = [this](const std::string&, const std::string&) { return known_uid_; },
                 .leaves = [this](UniqueFd netns) { left_.push_back(std::move(netns)); },
                 .netns_changed = [this] { ++changes_; },
                 .ready = [] { return Result<void>(); },
                 .wake_at = [this](CniDoor::Clock::time_point time) { due_ = time; }}};
};

TEST_F(Door, lets_a_pod_pass_at_once_that_is_settled) {
  standing_ = Standing::kSettled;
  add("c1");
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_TRUE(answers_[0]);
  EXPECT_EQ(changes_, 1);
  EXPECT_NE(table_.place(kUid).path, "");
}

TEST_F(Door, keeps_a_pod_waiting_until_it_is_in_the_kernel) {
  add("c1");
  EXPECT_TRUE(answers_.empty());
  now_ += 1s;
  door_.settle();
  EXPECT_TRUE(answers_.empty());
  standing_ = Standing::kSettled;
  door_.settle();
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_TRUE(answers_[0]);
}

TEST_F(Door, says_why_before_the_plugins_time_is_over) {
  add("c1");
  now_ += 1800ms;
  door_.settle();
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_EQ(answers_[0].error().code, ErrorCode::kBusy);
  EXPECT_NE(answers_[0].error().message.find("shop/web"), std::string::npos);
}

TEST_F(Door, is_due_when_the_first_of_those_that_wait_has_waited_enough) {
  const auto start = now_;
  add("c1");
  now_ += 100ms;
  add("c2");
  EXPECT_EQ(due_, start + 1700ms);
  now_ = due_.value();
  door_.settle();
  EXPECT_EQ(answers_.size(), 1U);
  EXPECT_EQ(due_, start + 1800ms);
}

class DoorOfPatientPlugins : public Door {
 protected:
  DoorOfPatientPlugins() : Door(20s) {}
};

TEST_F(DoorOfPatientPlugins, waits_as_long_as_they_do) {
  add("c1");
  now_ += 16s;
  door_.settle();
  EXPECT_TRUE(answers_.empty());
  now_ += 3s;
  door_.settle();
  EXPECT_EQ(answers_.size(), 1U);
}

// After a start an engine that runs is about to come back.
TEST_F(Door, keeps_a_pod_waiting_for_an_engine_only_while_one_may_come_back) {
  door_.open();
  standing_ = Standing::kEngineDown;
  add("c1");
  now_ += 999ms;
  door_.settle();
  EXPECT_TRUE(answers_.empty());
  now_ += 1ms;
  door_.settle();
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_TRUE(answers_[0]);
  add("c2");
  ASSERT_EQ(answers_.size(), 2U) << "from then on at once";
  EXPECT_TRUE(answers_[1]);
}

TEST_F(Door, does_not_let_a_check_wait_for_an_engine) {
  door_.open();
  standing_ = Standing::kEngineDown;
  EXPECT_TRUE(door_.check({.pod_namespace = "shop", .pod_name = "web", .pod_uid = kUid}));
}

class DoorOfHastyPlugins : public Door {
 protected:
  DoorOfHastyPlugins() : Door(100ms) {}
};

TEST_F(DoorOfHastyPlugins, refuses_no_pod_for_an_engine_that_it_did_not_wait_for) {
  door_.open();
  standing_ = Standing::kEngineDown;
  add("c1");
  now_ += 84ms;
  door_.settle();
  EXPECT_TRUE(answers_.empty());
  EXPECT_EQ(due_, now_ + 1ms);
  now_ += 1ms;
  door_.settle();
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_TRUE(answers_[0]);
}

TEST_F(Door, says_that_the_api_has_not_shown_the_pod) {
  standing_ = Standing::kUnknown;
  add("c1");
  now_ += 1800ms;
  door_.settle();
  ASSERT_EQ(answers_.size(), 1U);
  EXPECT_NE(answers_[0].error().message.find("API server"), std::string::npos);
}

TEST_F(Door, answers_each_question_once) {
  add("c1");
  add("c1");
  standing_ = Standing::kSettled;
  door_.settle();
  door_.settle();
  EXPECT_EQ(answers_.size(), 2U);
}

TEST_F(Door, takes_the_uid_of_the_api_where_the_runtime_gives_none) {
  standing_ = Standing::kSettled;
  add("c1", "");
  EXPECT_TRUE(answers_.at(0));
  EXPECT_NE(table_.place(kUid).path, "");
}

TEST_F(Door, refuses_a_pod_that_nobody_can_name) {
  known_uid_.reset();
  add("c1", "");
  EXPECT_EQ(answers_.at(0).error().code, ErrorCode::kBusy);
}

TEST_F(Door, lets_the_namespace_go_at_del_and_says_so) {
  standing_ = Standing::kSettled;
  add("c1");
  door_.remove({.container_id = "c1", .ifname = "eth0"});
  EXPECT_EQ(left_.size(), 1U) << "its namespace";
  EXPECT_EQ(table_.place(kUid).path, "");
  EXPECT_EQ(changes_, 2);
}

TEST_F(Door, takes_no_notice_of_a_del_of_others) {
  door_.remove({.container_id = "c9", .ifname = "eth0"});
  EXPECT_EQ(changes_, 0);
}

TEST_F(Door, forgets_what_a_gc_does_not_name) {
  standing_ = Standing::kSettled;
  add("c1");
  door_.keep_only({{.container_id = "c2", .ifname = "eth0"}});
  EXPECT_EQ(table_.place(kUid).path, "");
}

TEST_F(Door, checks_a_pod_by_what_the_kernel_has) {
  EXPECT_FALSE(door_.check({.pod_namespace = "shop", .pod_name = "web", .pod_uid = kUid}));
  standing_ = Standing::kSettled;
  EXPECT_TRUE(door_.check({.pod_namespace = "shop", .pod_name = "web", .pod_uid = kUid}));
}

}  // namespace
}  // namespace sidetrack::agent
