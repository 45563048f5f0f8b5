// SPDX-License-Identifier: Apache-2.0
// The clock that all programs of the soak share. Thread rule: plain functions.
#pragma once

#include <cstdint>
#include <ctime>

namespace sidetrack::soak {

[[nodiscard]] inline std::int64_t monotonic_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace sidetrack::soak
