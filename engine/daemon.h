// SPDX-License-Identifier: Apache-2.0
// The life of the process: starts everything, obeys signals, drains, ends.
#pragma once

#include "engine/options.h"

namespace sidetrack::engine {

// Runs until SIGTERM or SIGINT and the drain are over, or something fails. The exit code: 0 or 1.
[[nodiscard]] int run_daemon(const Options& options);

}  // namespace sidetrack::engine
