// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/widening.h"

namespace sidetrack::adopt {

namespace {

constexpr std::chrono::milliseconds kNext{50};

}  // namespace

void Widening::tick(Clock::time_point now) {
  if (narrow_.empty() || now < due_) {
    return;
  }
  due_ = now + kNext;
  // In turn: one that is in again at once must not keep the others waiting.
  auto next = narrow_.upper_bound(walked_);
  if (next == narrow_.end()) {
    next = narrow_.begin();
  }
  walked_ = *next;
  narrow_.erase(next);
  sockets_.widen(walked_);
}

}  // namespace sidetrack::adopt
