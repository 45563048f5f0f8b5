// SPDX-License-Identifier: Apache-2.0
// How much skips TCP at once, how soon, and what it costs. Prints one line of JSON per measurement.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_talkers.h"
#include "tests/lab/proc_stats.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

const milliseconds kSoon{500};  // a hot connection, from the end of its pod's probation
// Both ends of one TCP connection: two entries of the sockhash, two psocks, two storages.
constexpr std::uint64_t kKernelBytes = 6144;
constexpr std::uint64_t kAgentBytes = 2048;
// The engine keeps one of its links to itself; a pod has room for one relayed connection more.
constexpr std::uint64_t kLinks = ST_LINKS_PER_ENGINE - 1;
constexpr std::uint64_t kRelayedOfPod = ST_PAIR_QUOTA / 2;
static_assert(kRelayedOfPod == kLinks + 1);

// Bytes in the kernel's caches for small objects, of all processes.
std::uint64_t slab_bytes() {
  std::ifstream file("/proc/slabinfo");
  std::uint64_t sum = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t active = 0;
    std::uint64_t total = 0;
    std::uint64_t size = 0;
    if (line.starts_with("kmalloc-") && words >> name >> active >> total >> size) {
      sum += active * size;
    }
  }
  return sum;
}

class FastScale : public FastTalkers {
 protected:
  // Ping-pong on one connection until it is adopted; how long that took.
  milliseconds until_adopted(std::uint64_t count) {
    const auto begin = Clock::now();
    expect_all_adopted(count);
    return std::chrono::ceil<milliseconds>(Clock::now() - begin);
  }
};

class FastScaleOfMany : public FastScale {
 protected:
  // `count` connections of `pairs` TCP connections each: that all are adopted, and what one costs.
  void expect_many(const std::string& mode, std::uint64_t count, std::uint64_t pairs) {
    // So many segments that none is adopted before all are there.
    ASSERT_NO_FATAL_FAILURE(start({.round_trips = "16", .mode = mode}));
    const std::uint64_t agent_before = resident_bytes(sidetrack_->agent().pid());
    ASSERT_NO_FATAL_FAILURE(hold(count));
    expect_exact(count);
    ASSERT_EQ(adopted(), 0U);
    const std::uint64_t slab_before = slab_bytes();
    const milliseconds took = until_adopted(count);
    ASSERT_FALSE(HasFatalFailure());
    const std::uint64_t kernel = (slab_bytes() - slab_before) / count;
    const std::uint64_t agent = (resident_bytes(sidetrack_->agent().pid()) - agent_before) / count;
    expect_all_fast(count);
    EXPECT_LE(kernel, pairs * kKernelBytes);
    EXPECT_LE(agent, pairs * kAgentBytes);
    fmt::print("{}\n", json{{"mode", mode},
                            {"adopted_connections", count},
                            {"all_adopted_ms", took.count()},
                            {"kernel_bytes_per_connection", kernel},
                            {"agent_bytes_per_connection", agent},
                            {"agent_rss_bytes", resident_bytes(sidetrack_->agent().pid())}}
                           .dump());
  }
};

TEST_F(FastScaleOfMany, nine_thousand_connections_skip_tcp_at_once) {
  expect_many("passthrough", 9000, 1);
}

// Those beyond are relayed as without the fast path; the one for which there is room, but no link,
// skips TCP to the engine only.
TEST_F(FastScaleOfMany, as_many_skip_the_engine_as_it_has_links_and_more_are_relayed) {
  constexpr std::uint64_t kMore = 200;
  ASSERT_NO_FATAL_FAILURE(expect_many("redirect", kLinks, 2));
  const std::uint64_t full = counted().refused["fp_pairs_full"];
  ASSERT_NO_FATAL_FAILURE(hold(kMore));
  FastCounts round;
  EXPECT_TRUE(eventually(kLong,
                         [&] {
                           const FastCounts before = counted();
                           expect_exact(kLinks + kMore);
                           round = counted();
                           round.handoffs -= before.handoffs;
                           round.messages -= before.messages;
                           return HasFailure() ||
                                  (round.handoffs == 2 * kLinks && round.messages == 2);
                         }))
      << round.handoffs << " past the engine, " << round.messages << " to it";
  EXPECT_EQ(round.refused["fp_pairs_full"] - full, 2 * (kMore - 1));
}

// The best of some: another program may have had the CPU.
TEST_F(FastScale, a_hot_connection_is_adopted_within_half_a_second) {
  ASSERT_NO_FATAL_FAILURE(start({}));
  milliseconds best = kLong;
  for (std::uint64_t count = 1; count <= 5; ++count) {
    ASSERT_NO_FATAL_FAILURE(hold(1));
    best = std::min(best, until_adopted(count));
  }
  EXPECT_LE(best, kSoon);
  fmt::print("{}\n", json{{"hot_connection_adopted_ms", best.count()}}.dump());
}

TEST_F(FastScale, what_was_established_without_an_agent_is_adopted_when_it_is_back) {
  ASSERT_NO_FATAL_FAILURE(start({}));
  sidetrack_->agent().kill_hard();
  ASSERT_NO_FATAL_FAILURE(hold(20));
  for (int round = 0; round < 5; ++round) {
    expect_exact(20);
  }
  EXPECT_EQ(fast_messages(), 0U);
  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_NO_FATAL_FAILURE(expect_all_adopted(20));
  expect_all_fast(20);
}

// Its child lives on for a moment, without the agent's listeners.
TEST_F(FastScale, an_agent_killed_during_its_self_test_can_be_started_at_once) {
  ASSERT_NO_FATAL_FAILURE(start({}));
  sidetrack_->agent().kill_hard();
  {
    ST_ASSERT_VALUE(auto agent, Process::start(sidetrack_->agent_spec()));
    ST_ASSERT_OK(agent->wait_for_output("event=started"));
    agent->kill_hard();
  }
  ST_ASSERT_OK(sidetrack_->start_agent());
}

}  // namespace
}  // namespace sidetrack::lab
