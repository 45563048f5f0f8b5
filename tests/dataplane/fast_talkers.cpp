// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/fast_talkers.h"

#include <fmt/format.h>

#include <thread>

#include <nlohmann/json.hpp>

namespace sidetrack::lab {

using nlohmann::json;

namespace {

Result<json> check_held(PodShell& shell, std::uint64_t length) {
  return shell.command(fmt::format("check_held len={}", length), scaled(milliseconds(100'000)));
}

}  // namespace

Talk::Talk(PodShell& shell, std::uint64_t connections) : shell_(shell), connections_(connections) {
  wrong_ = std::async(std::launch::async, [this] { return run(); });
}

std::string Talk::run() {
  constexpr std::uint64_t kLengths[] = {700, 1, 4096};
  constexpr milliseconds kPause{100};  // an agent that starts tests the kernel meanwhile
  while (!stop_.load()) {
    const std::uint64_t round = rounds_.load();
    const auto checked = check_held(shell_, kLengths[round % std::size(kLengths)]);
    if (!checked || checked->value("same", std::uint64_t{0}) != connections_ ||
        !checked->at("errors").empty()) {
      return fmt::format("round {}: {}", round,
                         checked ? checked->dump() : checked.error().message);
    }
    rounds_.fetch_add(1);
    std::this_thread::sleep_for(kPause);
  }
  return "";
}

bool Talk::goes_on() {
  const std::uint64_t before = rounds();
  return eventually(kPatience, [&] { return rounds() >= before + 3; });
}

std::string Talk::stop() {
  stop_.store(true);
  return wrong_.get();
}

void FastTalkers::start(const TalkersOptions& options) {
  options_ = options;
  ST_ASSERT_OK(objects_->put(
      NamespaceSpec{.name = "shop", .labels = {{"sidetrack.io/mode", options.mode}}}));
  client_ = &meshed_pod("client");
  server_ = &meshed_pod("server");
  echo_ = echo_in(*server_, {"echo:7000"});
  shell_ = shell_in(*client_);
  ASSERT_NO_FATAL_FAILURE(
      make_sidetrack({.fast_path = true,
                      .agent_arguments = {"--fast-path-probation", options.probation,
                                          "--fast-path-round-trips", options.round_trips}}));
  ST_ASSERT_OK(sidetrack_->start_agent());
  if (options.mode == "redirect") {
    ST_ASSERT_OK(sidetrack_->start_engine());
  }
  for (const char* pod : {"client", "server"}) {
    ASSERT_NO_FATAL_FAILURE(wait_until_enrolled(pod, options.mode));
  }
}

std::uint64_t FastTalkers::adopted() const {
  const auto status = sidetrack_->get("/v1/status");
  return status ? status->value("fast_path_connections", std::uint64_t{0}) : 0;
}

FastCounts FastTalkers::counted() const {
  const auto counts = KernelView(sidetrack_->pin_dir()).fast_counts();
  EXPECT_TRUE(counts.has_value()) << counts.error().message;
  return counts ? *counts : FastCounts();
}

void FastTalkers::hold(std::uint64_t count) {
  ST_ASSERT_VALUE(
      const auto opened,
      shell_->command(fmt::format("hold {} 7000 {} nonblock", server_->v4, count), kLong));
  EXPECT_EQ(opened["opened"], count) << opened.dump();
}

void FastTalkers::expect_exact(std::uint64_t count) {
  ++rounds_;
  ST_ASSERT_VALUE(const auto checked, check_held(*shell_, kRequestBytes));
  EXPECT_EQ(checked["same"], count) << checked.dump() << sidetrack_->logs();
}

void FastTalkers::expect_all_adopted(std::uint64_t count) {
  // Of a redirected connection, both of its TCP connections are.
  const std::uint64_t wanted = options_.mode == "redirect" ? 2 * count : count;
  ASSERT_TRUE(eventually(kLong,
                         [&] {
                           expect_exact(count);
                           return HasFailure() || adopted() == wanted;
                         }))
      << adopted() << sidetrack_->logs();
}

void FastTalkers::expect_all_fast(std::uint64_t count) {
  EXPECT_TRUE(eventually(kLong, [&] {
    const std::uint64_t before = past_tcp();
    expect_exact(count);
    return HasFailure() || past_tcp() - before == 2 * count;
  })) << past_tcp();
}

}  // namespace sidetrack::lab
