// SPDX-License-Identifier: Apache-2.0
// What comes before an agent: the checks that need nothing made, and the wait for an earlier agent.
// Whoever waits seems fine to whoever rolls out, so what would fail later is refused before.
#pragma once

#include <optional>

#include "agent/main/instance_lock.h"
#include "agent/main/options.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

// Whether an agent with these options could run here: folders, addresses, cgroups, pins. Makes
// nothing.
[[nodiscard]] Result<void> check_start(const Options& options);

// The lock of the state folder; with --standby after the wait for who holds it. Nothing if a signal
// ended the wait. kBusy: another agent holds it, or something else what we shall need.
[[nodiscard]] Result<std::optional<InstanceLock>> take_lock(const Options& options);

}  // namespace sidetrack::agent
