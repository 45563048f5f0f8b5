// SPDX-License-Identifier: Apache-2.0
// Connections that end before anybody has looked at them, many and fast: they are as those of plain
// TCP, leave nothing behind, and each has its flow record.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_list.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint64_t kShort = 5'000;
constexpr std::size_t kKeptFlows = 20'000;  // by the agent
const milliseconds kLong = scaled(milliseconds(100'000));

class FastListMany : public FastList {
 protected:
  void expect_nothing_left() const {
    EXPECT_TRUE(eventually(kPatience, [&] { return sidetrack_->dump_map("st_pairs")->empty(); }));
    EXPECT_EQ(refused("fp_pairs_full"), 0U);
    EXPECT_EQ(refused("fp_internal"), 0U);
  }
  // Connected, and ended by an RST, as fast as it goes; so many a second is `rate`.
  void connect_at_full_speed(const World& world, Where where, std::size_t count,
                             nlohmann::json& rate) {
    const bool inside = where == Where::kLoopback;
    ST_ASSERT_VALUE(
        const auto echo,
        EchoServer::start({world.server->netns.path(), cgroup_->path()}, {"sink:7000"}));
    ST_ASSERT_VALUE(const auto done,
                    (inside ? world.server_shell : world.client_shell)
                        ->command(fmt::format("burst {} 7000 {} threads=2 len=0 reset",
                                              inside ? "127.0.0.1" : world.server->v4, count),
                                  kLong));
    EXPECT_EQ(done.value("ok", std::size_t{0}), count) << done.dump();
    rate = static_cast<double>(count) * 1e6 / done.value("total_us", 1.0);
  }
};

// They end before anybody looks at them, and leave nothing behind.
TEST_F(FastListMany, short_connections_leave_nothing) {
  for (const World* world : {&plain_, &shop_}) {
    ST_ASSERT_VALUE(auto echo, EchoServer::start({world->server->netns.path(), cgroup_->path()},
                                                 {"echo:7000"}));
    for (const auto& [shell, address] :
         {std::pair{world->client_shell.get(), world->server->v4},
          std::pair{world->server_shell.get(), std::string("::1")}}) {
      ST_ASSERT_VALUE(const auto burst,
                      shell->burst(address, 7000, {.count = kShort, .threads = 2}));
      EXPECT_EQ(burst.ok, kShort) << address;
      EXPECT_EQ(burst.connect_errors.size() + burst.io_errors.size() + burst.mismatches, 0U);
    }
  }
  expect_nothing_left();
}

TEST_F(FastListMany, short_connections_at_full_speed_leave_nothing_and_all_are_told) {
  nlohmann::json rates{{"short_connections", many()}};
  for (const Where where : {Where::kVeth, Where::kLoopback}) {
    const std::string name = where == Where::kVeth ? "veth" : "loopback";
    for (const auto& [world, way] : {std::pair{&plain_, "off"}, std::pair{&shop_, "on"}}) {
      auto& rate = rates[fmt::format("{}_per_second_fast_path_{}", name, way)];
      ASSERT_NO_FATAL_FAILURE(connect_at_full_speed(*world, where, many(), rate));
    }
  }
  fmt::print("{}\n", rates.dump());
  expect_nothing_left();
  std::map<std::string, std::size_t> told;
  EXPECT_TRUE(eventually(kPatience, [&] {
    told.clear();
    const auto page = sidetrack_->get("/v1/flows?namespace=shop");
    for (const auto& flow : page ? page->at("flows") : nlohmann::json::array()) {
      ++told[flow.value("close", "") + " " + flow.value("fast_path_reason", "")];
    }
    // It can be closed before its last ACK is there.
    return told["rst_local fp_young"] + told["rst_local fp_no_peer"] ==
           std::min(many(), kKeptFlows);
  })) << nlohmann::json(told);
  EXPECT_GT(told["rst_local fp_young"], 0U);
  EXPECT_EQ(sidetrack_->metric("sidetrack_flow_records_dropped_total"), 0U);
}

}  // namespace
}  // namespace sidetrack::lab
