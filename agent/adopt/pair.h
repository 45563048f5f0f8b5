// SPDX-License-Identifier: Apache-2.0
// One pair and the requests about it. Plain values, no I/O.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "sidetrack/abi/fast.h"

namespace sidetrack::adopt {

using Clock = std::chrono::steady_clock;

enum class Stage : std::uint8_t {
  kLook,     // neither end was looked at yet
  kWait,     // suitable; its pods are on probation, or policy is against it
  kAdopted,  // both ends are in
  kLeave,    // both ends are being taken out
  kRefused,  // for good
};

// A connection of which both ends are on this node.
struct Candidate {
  st_pair_key key{};
  st_pair_end end[2]{};  // by enum st_pair_side
  std::uint8_t kind = 0;
};

struct Pair {
  Candidate nominated{};
  Stage stage = Stage::kLook;
  Clock::time_point due{};
  unsigned attempts = 0;                     // in this stage
  st_fast_reason reason = ST_FAST_NONE;      // why it is not adopted
  bool disarmed = false;                     // in kLeave
  std::optional<std::uint64_t> linked_with;  // client cookie of the relay's other pair
};

// A link as an engine declared it.
struct Link {
  std::uint64_t client_leg = 0;  // cookie of the engine's accepted socket
  std::uint64_t server_leg = 0;  // cookie of its upstream socket
  std::uint32_t index = 0;
};

[[nodiscard]] st_adopt_request request_for(const Pair& pair, st_pair_side side, st_adopt_op op);
// The request that lets `side` of `pair` (the application's end) send past the engine to the
// application's end of `other`. `client` is the one of both whose server's end is the engine's.
[[nodiscard]] st_adopt_request link_request(const Pair& pair, const Pair& other, const Pair& client,
                                            std::uint32_t index);

// Whether another look, a moment later, may find what this one did not.
[[nodiscard]] bool passes(st_fast_reason reason);
// fp_blocking
[[nodiscard]] std::string_view name_of(st_fast_reason reason);
// What it means, in words.
[[nodiscard]] std::string_view text_of(st_fast_reason reason);

}  // namespace sidetrack::adopt
