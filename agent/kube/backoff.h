// SPDX-License-Identifier: Apache-2.0
// Backoff: how long to wait before the next try. Doubles up to a cap, with jitter; back to the
// first delay after a time without trouble. The clock and the random numbers are the caller's.
// Pure.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

namespace sidetrack::kube {

using TimePoint = std::chrono::steady_clock::time_point;
using Random = std::function<double()>;  // in [0, 1)

struct BackoffTimes {
  std::chrono::milliseconds first{800};
  std::chrono::milliseconds cap{30'000};
  std::chrono::milliseconds reset{120'000};
};

class Backoff {
 public:
  Backoff(BackoffTimes times, Random random)
      : times_(times), random_(std::move(random)), next_(times.first) {}

  // In [d, 2d) with d = 800 ms, 1.6 s, ... 30 s.
  [[nodiscard]] std::chrono::milliseconds next(TimePoint now) {
    if (used_ && now - last_ > times_.reset) {
      next_ = times_.first;
    }
    used_ = true;
    const auto base = next_;
    next_ = std::min(next_ * 2, times_.cap);
    const auto delay = base + std::chrono::milliseconds(static_cast<std::chrono::milliseconds::rep>(
                                  static_cast<double>(base.count()) * random_()));
    last_ = now + delay;  // the time of waiting is no time without trouble
    return delay;
  }

 private:
  BackoffTimes times_;
  Random random_;
  std::chrono::milliseconds next_;
  TimePoint last_{};
  bool used_ = false;
};

}  // namespace sidetrack::kube
