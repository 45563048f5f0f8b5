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

// A link as an engine declared it.
struct Link {
  std::uint64_t client_leg = 0;  // cookie of the engine's accepted socket
  std::uint64_t server_leg = 0;  // cookie of its upstream socket
  std::uint32_t index = 0;
};

struct Pair {
  Candidate nominated{};
  Stage stage = Stage::kLook;
  Clock::time_point due{};
  unsigned attempts = 0;                 // in this stage
  st_fast_reason reason = ST_FAST_NONE;  // why it is not adopted
  st_fast_reason noted = ST_FAST_YOUNG;  // the kernel has it; YOUNG: nothing yet, NONE: not known
  bool disarmed = false;                 // in kLeave
  std::optional<Link> link;              // it is joined with the relay's other pair
};

[[nodiscard]] st_adopt_request request_for(const Pair& pair, st_pair_side side, st_adopt_op op);
// A request (ST_ADOPT_LINK, ST_ADOPT_ARM_LINK) about the way of the application's end of `pair`
// past the engine to that of `other`. `client` is the one of both whose server's end is the
// engine's.
[[nodiscard]] st_adopt_request link_request(const Pair& pair, const Pair& other, const Pair& client,
                                            std::uint32_t index, st_adopt_op op);

[[nodiscard]] inline std::uint64_t client_cookie(const Pair& pair) {
  return pair.nominated.end[ST_SIDE_CLIENT].cookie;
}
[[nodiscard]] inline std::uint64_t server_cookie(const Pair& pair) {
  return pair.nominated.end[ST_SIDE_SERVER].cookie;
}

// Whether its ends are on the fast path, or on their way out.
[[nodiscard]] inline bool is_in(const Pair& pair) {
  return pair.stage == Stage::kAdopted || pair.stage == Stage::kLeave;
}

// Whether another look, a moment later, may find what this one did not.
[[nodiscard]] bool passes(st_fast_reason reason);
// fp_blocking
[[nodiscard]] std::string_view name_of(st_fast_reason reason);
// What it means, in words.
[[nodiscard]] std::string_view text_of(st_fast_reason reason);

}  // namespace sidetrack::adopt
