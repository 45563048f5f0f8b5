// SPDX-License-Identifier: Apache-2.0
// Traffic: bursts of connections, one after another, on a thread of its own until stop(). Thread
// rule: one owner.
#pragma once

#include <atomic>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "tests/lab/pod_shell.h"

namespace sidetrack::lab {

// An echo server as a client names it.
struct Target {
  std::string address;
  std::uint16_t port;
};

class Traffic {
 public:
  // Each round goes to the next of `targets`.
  Traffic(std::unique_ptr<PodShell> shell, std::vector<Target> targets, BurstOptions round);
  ~Traffic() { stop_.store(true); }  // the future then waits for the round that runs
  Traffic(const Traffic&) = delete;
  Traffic& operator=(const Traffic&) = delete;
  // Ends after the round that runs; the sum of all rounds.
  BurstResult stop();
  [[nodiscard]] std::uint64_t rounds() const { return rounds_.load(); }

 private:
  BurstResult run();

  std::unique_ptr<PodShell> shell_;
  std::vector<Target> targets_;
  BurstOptions round_;
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> rounds_{0};
  std::future<BurstResult> result_;
};

}  // namespace sidetrack::lab
