// SPDX-License-Identifier: Apache-2.0
#include "tests/soak/standstills.h"

#include <algorithm>
#include <numeric>

namespace sidetrack::soak {

void Standstills::take(const nlohmann::json& line) {
  const auto id = line.at("id").get<std::uint64_t>();
  if (id == 0) {
    return;  // it does not know its connection yet
  }
  End& end = ends_[{id, line.at("side").get<std::string>()}];
  end.told_ms = line.at("now").get<std::int64_t>();
  if (line.at("what") == "end") {
    end.ended_ms = end.told_ms;
  } else {
    end.still[line.at("from").get<std::int64_t>()] = end.told_ms;
  }
}

Standstills::Other Standstills::other_end(const nlohmann::json& stall,
                                          std::int64_t least_ms) const {
  const auto from = stall.at("from").get<std::int64_t>();
  const auto to = stall.at("now").get<std::int64_t>();
  const std::string side = stall.at("side") == "client" ? "server" : "client";
  const auto found = ends_.find({stall.at("id").get<std::uint64_t>(), side});
  if (found == ends_.end()) {
    return Other::kUnknown;
  }
  const End& end = found->second;
  const std::int64_t both = std::accumulate(end.still.begin(), end.still.end(), std::int64_t{0},
                                            [&](std::int64_t sum, const auto& still) {
                                              const auto common = std::min(still.second, to) -
                                                                  std::max(still.first, from);
                                              return sum + std::max<std::int64_t>(0, common);
                                            });
  if (both >= least_ms) {
    return Other::kStoodStill;
  }
  return end.ended_ms && *end.ended_ms >= to ? Other::kMoved : Other::kUnknown;
}

void Standstills::forget(std::int64_t before_ms) {
  std::erase_if(ends_, [&](const auto& entry) { return entry.second.told_ms < before_ms; });
}

}  // namespace sidetrack::soak
