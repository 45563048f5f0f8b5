// SPDX-License-Identifier: Apache-2.0
// Without room for the original destination nothing is redirected: the quota of one netns
// (ST_RECORD_QUOTA) and the node's headroom (ST_RECORD_HEADROOM). The engine takes records as fast
// as connections come, so the tests fill the kernel's counts instead of the map.
#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

constexpr std::int64_t kQuota = ST_RECORD_QUOTA;
constexpr std::int64_t kNodeRoom = ST_MAX_RECORDS - ST_RECORD_HEADROOM;

class Records : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    start_echo();
    start_sidetrack();
  }
  void set_closed() {
    put_web("web", {{"sidetrack.io/on-engine-loss", "closed"}});
    ASSERT_TRUE(eventually(kPatience, [&] {
      return row().on_engine_loss == ST_ON_ENGINE_LOSS_CLOSED;
    })) << sidetrack_->logs();
  }
  void expect_refused() {
    const Counts before = counted();
    ST_ASSERT_VALUE(const auto socket, shell_->connect(api_v4_, kEcho));
    EXPECT_EQ(socket.errno_name, "ECONNREFUSED");
    EXPECT_EQ(since(before), (Counts{{"engine_down_closed", 1}}));
  }
};

TEST_F(Records, of_a_pod_without_room_let_its_connections_go_direct_until_there_is_some) {
  ST_ASSERT_VALUE(const auto open, shell_->connect(api_v4_, kEcho));
  ST_ASSERT_OK(kernel().add_records(cookie_, kQuota));
  expect_connections(20, "internal_error");
  EXPECT_EQ(explain(), "internal_error");
  expect_alive(*shell_, open.id);
  ST_ASSERT_OK(kernel().add_records(cookie_, -1));
  // Room for one: taken and given back by each.
  expect_connections(20, "redirected");
  ST_ASSERT_OK(kernel().add_records(cookie_, 1 - kQuota));
  expect_connections(20, "redirected");
  expect_alive(*shell_, open.id);
}

TEST_F(Records, of_a_pod_without_room_refuse_its_connections_when_it_is_closed) {
  ASSERT_NO_FATAL_FAILURE(set_closed());
  ST_ASSERT_OK(kernel().add_records(cookie_, kQuota));
  expect_refused();
  EXPECT_EQ(explain(), "engine_down_closed");
  ST_ASSERT_OK(kernel().add_records(cookie_, -kQuota));
  expect_connections(20, "redirected");
}

TEST_F(Records, of_the_node_without_room_let_connections_of_every_pod_go_direct) {
  ST_ASSERT_OK(kernel().add_records(kNodeRoom));
  expect_connections(20, "internal_error");
  EXPECT_EQ(explain(), "internal_error");
  ASSERT_NO_FATAL_FAILURE(set_closed());
  expect_refused();
  ST_ASSERT_OK(kernel().add_records(-kNodeRoom));
  expect_connections(20, "redirected");
}

}  // namespace
}  // namespace sidetrack::lab
