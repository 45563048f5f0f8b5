// SPDX-License-Identifier: Apache-2.0
// The two clocks of what the agent shows: the kernel's programs speak CLOCK_MONOTONIC, people do
// not.
#pragma once

#include <cstdint>
#include <ctime>

namespace sidetrack::agent {

inline std::uint64_t clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// Seconds.
inline double unix_time() {
  return static_cast<double>(clock_ns(CLOCK_REALTIME)) / 1e9;
}

// CLOCK_MONOTONIC nanoseconds as Unix time.
inline double to_unix_time(std::uint64_t monotonic_ns) {
  return unix_time() -
         (static_cast<double>(clock_ns(CLOCK_MONOTONIC)) - static_cast<double>(monotonic_ns)) / 1e9;
}

}  // namespace sidetrack::agent
