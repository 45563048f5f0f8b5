// SPDX-License-Identifier: Apache-2.0
// What applications notice when the engine has no room: what `open` sends direct, `closed` refuses,
// each until there is some.
#include <fmt/format.h>

#include <csignal>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint64_t kQueue = 64;
constexpr std::uint64_t kFiles = 300;
constexpr std::uint64_t kBurst = 300;

class EngineFull : public FaultNode {
 protected:
  void set_closed() { put_web("web", {{"sidetrack.io/on-engine-loss", "closed"}}); }
  // An engine whose accept queues are short.
  void start_with_short_queues() {
    start_echo({"silent:7000"});
    ST_ASSERT_OK(web_->netns.write_sysctl("core/somaxconn", std::to_string(kQueue)));
    ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  }
  // Holds a burst of connections to an engine that is stopped, then lets it go on: {"opened",
  // "errors"}.
  void fill_queue(nlohmann::json* held) {
    ST_ASSERT_OK(sidetrack_->engine().signal(SIGSTOP));
    const auto started = Clock::now();
    auto answer = shell_->command(fmt::format("hold {} {} {}", api_v4_, kEcho, kBurst));
    const auto passed = Clock::now() - started;
    ST_ASSERT_OK(sidetrack_->engine().signal(SIGCONT));
    ST_ASSERT_OK(answer);
    *held = std::move(*answer);
    // A SYN that is dropped comes again after a second.
    EXPECT_LT(passed, milliseconds(1000));
  }
  // Connections of another shell that stay open, until `reason` is what another one would get: step
  // by step, so that the engine has seen one step before the next begins.
  std::unique_ptr<PodShell> fill_files(const std::string& reason) {
    constexpr milliseconds kStepPatience{300};
    auto holder = shell_in(*web_);
    for (int step = 0; step < 30 && explain() != reason; ++step) {
      EXPECT_TRUE(holder->hold(api_v4_, kEcho, 10).has_value());
      (void)eventually(kStepPatience, [&] { return explain() == reason; });
    }
    EXPECT_EQ(explain(), reason) << sidetrack_->logs();
    return holder;
  }
};

TEST_F(EngineFull, accept_queue_stalls_no_connect) {
  ASSERT_NO_FATAL_FAILURE(start_with_short_queues());
  const Counts before = counted();
  nlohmann::json held;
  ASSERT_NO_FATAL_FAILURE(fill_queue(&held));
  EXPECT_EQ(held["opened"], kBurst) << held;
  Counts counts = since(before);
  EXPECT_LE(counts["redirected"], kQueue + 1);
  EXPECT_GT(counts["redirected"], 0U);
  EXPECT_GT(counts["engine_full"], 0U);
  EXPECT_EQ(counts["redirected"] + counts["engine_full"] + counts["engine_down"], kBurst);
  ASSERT_TRUE(eventually_explains("redirected")) << sidetrack_->logs();
}

TEST_F(EngineFull, accept_queue_refuses_if_the_pod_says_closed) {
  set_closed();
  ASSERT_NO_FATAL_FAILURE(start_with_short_queues());
  const Counts before = counted();
  nlohmann::json held;
  ASSERT_NO_FATAL_FAILURE(fill_queue(&held));
  const auto opened = held.value("opened", std::uint64_t{0});
  EXPECT_GT(opened, 0U) << held;
  EXPECT_LE(opened, kQueue + 1) << held;
  EXPECT_EQ(held["errors"], (nlohmann::json{{"ECONNREFUSED", kBurst - opened}})) << held;
  EXPECT_EQ(since(before),
            (Counts{{"redirected", opened}, {"engine_down_closed", kBurst - opened}}));
  ASSERT_TRUE(eventually_explains("redirected")) << sidetrack_->logs();
  const Counts well = counted();
  ST_ASSERT_VALUE(const auto again, shell_->hold(api_v4_, kEcho, 10));
  EXPECT_EQ(again, 10U);
  EXPECT_EQ(since(well), (Counts{{"redirected", 10}}));
}

TEST_F(EngineFull, files_are_left_to_others_until_connections_close) {
  // The pod's netns and listeners (4 of each family), and what the engine keeps for itself.
  constexpr std::uint64_t kOthers = 1 + 8 + 64;
  start_echo();
  ASSERT_NO_FATAL_FAILURE(
      start_sidetrack({.engine_launcher = {"prlimit", fmt::format("--nofile={}", kFiles)}}));
  expect_connections(10, "redirected");
  const Counts before = counted();
  const auto holder = fill_files("engine_full");
  const std::uint64_t used = 2 * since(before)["redirected"];
  EXPECT_LT(used, kFiles);
  EXPECT_GE(used + kOthers, kFiles * 90 / 100) << "it gave up early";
  expect_connections(20, "engine_full");
  ST_ASSERT_OK(holder->release());
  ASSERT_TRUE(eventually_explains("redirected")) << sidetrack_->logs();
  expect_connections(20, "redirected");
}

TEST_F(EngineFull, files_refuse_until_connections_close_if_the_pod_says_closed) {
  start_echo();
  set_closed();
  ASSERT_NO_FATAL_FAILURE(
      start_sidetrack({.engine_launcher = {"prlimit", fmt::format("--nofile={}", kFiles)}}));
  expect_connections(10, "redirected");
  const auto holder = fill_files("engine_down_closed");
  EXPECT_NE(sidetrack_->engine().output().find("event=files_full"), std::string::npos)
      << sidetrack_->logs();
  const Counts before = counted();
  ST_ASSERT_VALUE(const auto burst, shell_->burst(api_v4_, kEcho, {.count = 20}));
  EXPECT_EQ(burst.connect_errors, (Counts{{"ECONNREFUSED", 20}}));
  EXPECT_EQ(since(before), (Counts{{"engine_down_closed", 20}}));
  ST_ASSERT_OK(holder->release());
  ASSERT_TRUE(eventually_explains("redirected")) << sidetrack_->logs();
  expect_connections(20, "redirected");
}

}  // namespace
}  // namespace sidetrack::lab
