// SPDX-License-Identifier: Apache-2.0
// Runs inside a pod: connects, and asks the agent of the node what the kernel did with it.
#pragma once

#include "probe/options.h"
#include "sidetrack/result.h"

namespace sidetrack::probe {

// Prints a line per expectation. kNotFound: one was not met; the lines say how.
[[nodiscard]] Result<void> check(const Options& options);

}  // namespace sidetrack::probe
