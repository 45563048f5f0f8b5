// SPDX-License-Identifier: Apache-2.0
// What one worker counts. Each worker writes its own, anybody reads: relaxed atomics without locked
// instructions.
#pragma once

#include <atomic>
#include <cstdint>

namespace sidetrack::engine {

class Counter {
 public:
  void add(std::uint64_t amount) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  void subtract(std::uint64_t amount) { add(~amount + 1); }
  [[nodiscard]] std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

struct alignas(64) Counters {
  Counter connections;        // open now
  Counter accepted;           // since the start
  Counter not_redirected;     // refused: no original destination
  Counter no_endpoints;       // refused: a Service without endpoints
  Counter connect_failed;     // no upstream could be reached: the client saw RST
  Counter endpoint_failures;  // one endpoint did not answer
  Counter accept_paused;      // accept() found no file or memory
  Counter resets;             // ended by RST of either side
  Counter bytes_out;          // client to upstream
  Counter bytes_in;
  Counter buffered;                        // bytes that wait in user space now
  std::atomic<std::int64_t> turned_ns{0};  // CLOCK_MONOTONIC of the last turn of the loop
};

}  // namespace sidetrack::engine
