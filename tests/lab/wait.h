// SPDX-License-Identifier: Apache-2.0
// Waiting for a condition of the outside world that cannot be signalled to us, with a deadline. Not
// for ordering our own threads (use condition variables). Also the macros by which tests unwrap a
// Result.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>

#include "sidetrack/result.h"

namespace sidetrack::lab {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// How long to wait on this machine for what takes `usual` on others: ST_TIME_SCALE times as long
// (default 1; an emulated machine is slower). For deadlines, not for what a test is to measure.
[[nodiscard]] inline milliseconds scaled(milliseconds usual) {
  const char* scale = std::getenv("ST_TIME_SCALE");
  const long factor = scale == nullptr ? 1 : std::strtol(scale, nullptr, 10);
  return usual * std::clamp(factor, 1L, 100L);
}

// The deadline of everything that should take milliseconds: long enough for a busy two-core
// machine.
inline const milliseconds kPatience = scaled(milliseconds(10'000));

// Asks `predicate` every 2 ms until it is true or `within` has passed; says which.
template <typename Predicate>
[[nodiscard]] bool eventually(milliseconds within, Predicate predicate) {
  const Clock::time_point deadline = Clock::now() + within;
  for (;;) {
    if (predicate()) {
      return true;
    }
    if (Clock::now() >= deadline) {
      return false;
    }
    std::this_thread::sleep_for(milliseconds(2));
  }
}

// Milliseconds left until `deadline`, at least 0, as poll() takes them.
[[nodiscard]] inline int poll_timeout(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now()).count();
  return left > 0 ? static_cast<int>(left) : 0;
}

}  // namespace sidetrack::lab

#define ST_LAB_JOIN_(a, b) a##b
#define ST_LAB_JOIN(a, b) ST_LAB_JOIN_(a, b)

// ASSERT that a Result has a value; prints its error otherwise. Usable in functions that return
// void.
#define ST_ASSERT_OK(expression)                                       \
  do {                                                                 \
    auto&& st_checked = (expression);                                  \
    ASSERT_TRUE(st_checked.has_value()) << st_checked.error().message; \
  } while (false)

// ST_ASSERT_VALUE(auto pod, lab->add_pod("web")): declares or assigns the value of a Result, or
// fails the test.
#define ST_ASSERT_VALUE(target, expression)                 \
  auto ST_LAB_JOIN(st_value_, __LINE__) = (expression);     \
  ASSERT_TRUE(ST_LAB_JOIN(st_value_, __LINE__).has_value()) \
      << ST_LAB_JOIN(st_value_, __LINE__).error().message;  \
  target = std::move(ST_LAB_JOIN(st_value_, __LINE__)).value()
