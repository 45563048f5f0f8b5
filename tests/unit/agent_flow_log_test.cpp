// SPDX-License-Identifier: Apache-2.0
// The bounded log of flow records: sequence numbers, filters, the oldest going first.
#include <gtest/gtest.h>

#include "agent/main/flow_log.h"

namespace sidetrack::agent {
namespace {

admin::FlowView flow(const std::string& namespace_name, const std::string& pod, double end) {
  admin::FlowView view;
  view.namespace_name = namespace_name;
  view.pod = pod;
  view.end = end;
  return view;
}

std::string pods(const admin::FlowPage& page) {
  std::string text;
  for (const admin::FlowView& view : page.flows) {
    text += view.pod;
  }
  return text;
}

class FlowLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    log_.add(flow("shop", "a", 10));
    log_.add(flow("depot", "b", 20));
    log_.add(flow("shop", "c", 30));
  }
  FlowLog log_{0, 3};
};

TEST_F(FlowLogTest, gives_the_oldest_first) {
  EXPECT_EQ(pods(log_.find({})), "abc");
}

TEST_F(FlowLogTest, selects_by_namespace) {
  EXPECT_EQ(pods(log_.find({.namespace_name = "shop"})), "ac");
}

TEST_F(FlowLogTest, selects_by_time) {
  EXPECT_EQ(pods(log_.find({.since = 20})), "bc");
}

TEST_F(FlowLogTest, gives_whoever_follows_only_what_is_new) {
  const std::uint64_t next = log_.find({}).next_sequence;
  EXPECT_EQ(pods(log_.find({.after_sequence = next})), "");
  log_.add(flow("shop", "d", 40));
  EXPECT_EQ(pods(log_.find({.after_sequence = next})), "d");
  EXPECT_EQ(log_.find({.after_sequence = next}).next_sequence, next + 1);
}

TEST_F(FlowLogTest, goes_on_for_whoever_followed_an_agent_before) {
  const std::uint64_t next = log_.find({}).next_sequence;
  FlowLog later(1'000'000'000);
  later.add(flow("shop", "d", 40));
  EXPECT_EQ(pods(later.find({.after_sequence = next})), "d");
}

TEST_F(FlowLogTest, forgets_the_oldest) {
  log_.add(flow("shop", "d", 40));
  EXPECT_EQ(pods(log_.find({})), "bcd");
}

TEST_F(FlowLogTest, gives_a_slow_follower_what_is_left) {
  for (const char* pod : {"d", "e", "f", "g"}) {
    log_.add(flow("shop", pod, 50));
  }
  EXPECT_EQ(pods(log_.find({.after_sequence = 2})), "efg");
}

TEST_F(FlowLogTest, gives_nothing_to_a_follower_of_an_earlier_agent) {
  EXPECT_EQ(pods(log_.find({.after_sequence = 1000})), "");
}

}  // namespace
}  // namespace sidetrack::agent
