// SPDX-License-Identifier: Apache-2.0
// Problems in the log: a warning each, of many the first. One thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "agent/kube/model.h"

namespace sidetrack::agent {

// Whether the agent's status shows all of the problems, or one of many alike.
enum class StatusHas : std::uint8_t { kAll, kSome };

// `component`: whose they are.
void log_problems(std::string_view component, const std::vector<kube::Problem>& problems,
                  StatusHas has);

}  // namespace sidetrack::agent
