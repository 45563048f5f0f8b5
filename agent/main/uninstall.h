// SPDX-License-Identifier: Apache-2.0
// Takes everything away that an agent made: first no new connection is redirected, then the open
// ones may end, then programs, maps, cgroup and files go. The engine keeps running until the
// connections are done; it is not ended here.
#pragma once

#include "agent/main/options.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

// Prints what was removed, a line each. kBusy: an agent is running, or all but the plugin is gone.
[[nodiscard]] Result<void> uninstall(const Options& options);

// The part of it that the runtime sees: sidetrack-cni out of the CNI configuration, then its
// program. Prints what was done. kBusy: not all of it could be.
[[nodiscard]] Result<void> retract_plugin(const Options& options);

}  // namespace sidetrack::agent
