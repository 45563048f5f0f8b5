// SPDX-License-Identifier: Apache-2.0
// Problems in the log: a warning each, of many the first. One thread.
#pragma once

#include <string_view>
#include <vector>

#include "agent/kube/model.h"

namespace sidetrack::agent {

// `component`: whose they are.
void log_problems(std::string_view component, const std::vector<kube::Problem>& problems);

}  // namespace sidetrack::agent
