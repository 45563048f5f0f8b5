// SPDX-License-Identifier: Apache-2.0
// Load: programs that spin on every CPU for as long as it lives, and whether the CPUs were busy
// meanwhile. Thread rule: one owner, that outlives it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sidetrack/result.h"
#include "tests/lab/process.h"

namespace sidetrack::soak {

class Load {
 public:
  static Result<Load> begin();

  // The share of all CPUs' time, in percent, in which they had nothing to do since begin().
  [[nodiscard]] double idle_percent() const;
  // What a program that ended by itself has said; empty: none did.
  [[nodiscard]] std::string ended();

 private:
  std::vector<std::unique_ptr<lab::Process>> programs_;
  std::int64_t idle_before_ = 0;
  std::int64_t all_before_ = 0;
};

// How often a CPU was asked by another to work on what had arrived (RPS), since the machine's boot.
[[nodiscard]] std::uint64_t steered_to_other_cpus();

}  // namespace sidetrack::soak
