// SPDX-License-Identifier: Apache-2.0
// What a pod does to the kernel or to its neighbours, or what it may be kept from: memory that
// bytes past TCP take, and pairs that are none.
#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/memory_group.h"
#include "tests/dataplane/repaired.h"
#include "tests/dataplane/shared_fast_node.h"

namespace sidetrack::lab {
namespace {

constexpr int kMany = 100;

class FastHostile : public SharedFastNode {
 protected:
  [[nodiscard]] std::size_t pairs() const {
    const auto rows = sidetrack_->dump_map("st_pairs");
    EXPECT_TRUE(rows.has_value());
    return rows ? rows->size() : 0;
  }
};

TEST_F(FastHostile, few_short_messages_wait_past_tcp) {  // onebyte
  expect_same(scenarios::send_many_short_messages);
}

class FastHostileMemory : public FastHostile {};

// memcg: TCP waits where redirecting fails.
TEST_F(FastHostileMemory, a_reader_whose_memory_is_limited_stops_its_sender) {
  if (!MemoryGroup::is_possible()) {
    GTEST_SKIP() << "no memory controller of cgroup v1";
  }
  MemoryGroup memory(1U << 20U);
  memory.add(plain_.server_shell->process().pid());
  memory.add(shop_.server_shell->process().pid());
  expect_same([](Ends& ends) {
    const std::string end = scenarios::fill_a_sleeping_reader(ends, 8192, 64U << 20U);
    EXPECT_EQ(end, "EAGAIN");
    return end;
  });
  const auto counts = KernelView(sidetrack_->pin_dir()).fast_counts();
  EXPECT_TRUE(counts && counts->refused.contains("fp_memory"));
}

// repair, fill: whoever may choose sequence numbers must not publish a pair under those of others.
TEST_F(FastHostile, a_connection_under_repair_is_no_pair) {
  const std::size_t before = pairs();
  const Place place{shop_.client->netns.path(), cgroup_->path()};
  const auto privileged = connect_under_repair(place, Rights::kRoot, kMany);
  const auto anybody = connect_under_repair(place, Rights::kAnybody, kMany);
  EXPECT_EQ(pairs(), before);
  const Ends control = open(true);
  EXPECT_EQ(pairs(), before + 1);
}

}  // namespace
}  // namespace sidetrack::lab
