// SPDX-License-Identifier: Apache-2.0
// The value of sidetrack.io/tcp. Pure.
#pragma once

#include <string_view>

#include "sidetrack/abi/types.h"
#include "sidetrack/result.h"

namespace sidetrack::policy {

// "keepalive=60s,user-timeout=30s,congestion=bbr,nodelay": each at most once. Durations are whole
// numbers with a unit (ms, s, m, h); keepalive whole seconds up to 32,767, as TCP_KEEPIDLE has it.
// Errors (kInvalid) name the offending item.
[[nodiscard]] Result<st_tuning> parse_tuning(std::string_view text);

}  // namespace sidetrack::policy
