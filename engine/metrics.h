// SPDX-License-Identifier: Apache-2.0
// The engine's numbers as Prometheus text. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace sidetrack::engine {

struct MetricsInput {
  EngineTotals totals;
  std::uint64_t files_used = 0;
  std::uint64_t files_limit = 0;
  std::uint64_t pods = 0;
  std::uint64_t routes = 0;
  std::string version;
};

[[nodiscard]] std::string metrics_text(const MetricsInput& input);

}  // namespace sidetrack::engine
