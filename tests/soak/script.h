// SPDX-License-Identifier: Apache-2.0
// What one connection of the soak is to do. The client draws it and tells the server in its first
// bytes; all that both ends must agree on follows from that. Thread rule: plain values.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <string_view>

namespace sidetrack::soak {

enum Side : std::uint8_t { kClient, kServer };

enum class Kind : std::uint8_t {
  kPing,       // request, response, for a while; the client closes
  kShort,      // one request, one response
  kHalfClose,  // as kPing; then more bytes and FIN, which the server answers with bytes and FIN
  kStream,     // both send for a while of their own, then FIN
  kAbort,      // as kStream, until one of them resets the connection
  kRude,       // as kStream, until one of them closes without reading what is there
};
inline constexpr std::array<std::string_view, 6> kKindNames{"ping",   "short", "half_close",
                                                            "stream", "abort", "rude"};

// How an application takes its bytes.
enum class Habit : std::uint8_t {
  kPlain,
  kAsks,     // with FIONREAD how many wait, first
  kSplices,  // into a pipe
  kMptcp,    // from sockets that may be MPTCP's
};
inline constexpr std::array<std::string_view, 4> kHabitNames{"plain", "asks", "splices", "mptcp"};

struct Manner {
  Habit habit = Habit::kPlain;
  std::int64_t from_ms = 0;  // when it begins, CLOCK_MONOTONIC
};

constexpr std::uint32_t kMagic = 0x534f414b;

// The first bytes of a connection, as they are in memory: both ends are on one machine.
struct Hello {
  std::uint32_t magic = kMagic;
  Kind kind = Kind::kPing;
  Side ender = kClient;  // who resets or closes
  std::uint16_t reserved = 0;
  std::uint64_t id = 0;  // of the connection, in this run
  std::array<std::uint32_t, 2> duration_ms{};
};
static_assert(sizeof(Hello) == 24);

// The stream that `side` sends: a seed of lab::Pattern.
[[nodiscard]] inline std::uint64_t pattern_seed(const Hello& hello, Side side) {
  return 2 * hello.id + side;
}

// Lengths of messages: many small ones, some that fill a window.
[[nodiscard]] inline std::uint32_t draw_length(std::mt19937_64& random) {
  const std::uint64_t draw = random();
  const auto part = static_cast<std::uint32_t>(draw >> 32U);
  switch (draw % 16) {
    case 0:
      return 65536 + part % 458752;
    case 1:
    case 2:
    case 3:
    case 4:
      return 1024 + part % 15360;
    default:
      return 1 + part % 200;
  }
}

// Requests and responses of kPing, kShort and kHalfClose; both ends draw the same ones.
class Rounds {
 public:
  explicit Rounds(std::uint64_t id) : random_(id) {}
  struct Lengths {
    std::uint32_t request = 0;
    std::uint32_t response = 0;
  };
  Lengths next() {
    const std::uint32_t request = draw_length(random_);
    return {.request = request, .response = draw_length(random_)};
  }

 private:
  std::mt19937_64 random_;
};

[[nodiscard]] inline bool is_endless(Kind kind) {
  return kind == Kind::kAbort || kind == Kind::kRude;
}

[[nodiscard]] inline bool has_rounds(Kind kind) {
  return kind == Kind::kPing || kind == Kind::kShort || kind == Kind::kHalfClose;
}

}  // namespace sidetrack::soak
