// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/traffic.h"

#include <algorithm>

namespace sidetrack::lab {

Traffic::Traffic(std::unique_ptr<PodShell> shell, std::vector<Target> targets, BurstOptions round)
    : shell_(std::move(shell)), targets_(std::move(targets)), round_(round) {
  result_ = std::async(std::launch::async, [this] { return run(); });
}

BurstResult Traffic::run() {
  BurstResult sum;
  while (!stop_.load()) {
    const Target& target = targets_[rounds_.load() % targets_.size()];
    const auto part = shell_->burst(target.address, target.port, round_);
    if (!part) {
      sum.connect_errors["shell: " + part.error().message] = 1;
      return sum;
    }
    sum.ok += part->ok;
    sum.mismatches += part->mismatches;
    sum.max_us = std::max(sum.max_us, part->max_us);
    for (const auto& [name, count] : part->connect_errors) {
      sum.connect_errors[name] += count;
    }
    for (const auto& [name, count] : part->io_errors) {
      sum.io_errors[name] += count;
    }
    rounds_.fetch_add(1);
  }
  return sum;
}

BurstResult Traffic::stop() {
  stop_.store(true);
  return result_.get();
}

}  // namespace sidetrack::lab
