// SPDX-License-Identifier: Apache-2.0
// When the ends of connections stood still, by what they told. A writer that waits is no stall as
// long as its reader reads: TCP wakes a writer when a third of its buffer is free, and a proxy's
// buffers lie between, which a slow reader takes more than a second to empty. So one end's stall
// is one of the connection if the other end stood still with it. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

namespace sidetrack::soak {

class Standstills {
 public:
  // A line "gap", "stall" or "end" of an endpoint.
  void take(const nlohmann::json& line);

  // What the other end of `stall`'s connection did in that time.
  enum class Other : std::uint8_t {
    kStoodStill,  // for `least_ms` of it
    kMoved,       // it ended later, and told of no such time
    kUnknown,
  };
  [[nodiscard]] Other other_end(const nlohmann::json& stall, std::int64_t least_ms) const;

  // Forgets ends that have told nothing since then. CLOCK_MONOTONIC.
  void forget(std::int64_t before_ms);

 private:
  struct End {
    std::map<std::int64_t, std::int64_t> still;  // from, to; CLOCK_MONOTONIC
    std::optional<std::int64_t> ended_ms;
    std::int64_t told_ms = 0;
  };
  std::map<std::pair<std::uint64_t, std::string>, End> ends_;  // by connection and side
};

}  // namespace sidetrack::soak
