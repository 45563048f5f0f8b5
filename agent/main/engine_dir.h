// SPDX-License-Identifier: Apache-2.0
// Which cgroup can be an engine's. Whatever is in it is never redirected and, with what is below
// it, may ask for original destinations: no pod may be there. Reads cgroupfs and /proc, changes
// nothing.
#pragma once

#include <functional>
#include <string>

#include "agent/main/options.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

// Long enough for what is between fork and exec.
void wait_for_exec();

// `attach_dir`: where the programs attach. kInvalid: `engine_dir` is not below it, is above a pod,
// or holds processes that are not the engine's, also after `wait`; the message names them. Of an
// external engine every process of the node's network namespace may be, but not the agent.
[[nodiscard]] Result<void> check_engine_dir(reconcile::EngineKind kind,
                                            const std::string& attach_dir,
                                            const std::string& engine_dir,
                                            const std::function<void()>& wait = wait_for_exec);

}  // namespace sidetrack::agent
