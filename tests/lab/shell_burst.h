// SPDX-License-Identifier: Apache-2.0
// burst ADDRESS PORT COUNT [threads=1] [len=32] [timeout_ms=10000] [bind=ADDRESS]: COUNT
// connections one after another per thread, each with one request that an echo server sends back,
// compared byte for byte. Part of st_pod_shell.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "tests/lab/shell_sockets.h"

namespace sidetrack::lab {

// {"ok", "mismatches", "connect_errors": {name: n}, "io_errors": {name: n}, "max_us", "p50_us",
// "total_us"}.
[[nodiscard]] nlohmann::json run_burst(const Words& words);

}  // namespace sidetrack::lab
