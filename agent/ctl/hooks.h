// SPDX-License-Identifier: Apache-2.0
// Which BPF programs sit on the cgroup hooks that Sidetrack uses, whoever put them there. Reads
// only; needs root.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "agent/ctl/doctor.h"
#include "sidetrack/result.h"

namespace sidetrack::ctl {

// The programs attached to the cgroup itself (not to its descendants). kPermission: not root.
[[nodiscard]] Result<std::vector<HookedProgram>> hooked_programs(const std::string& cgroup_dir);

// The ids of the programs that are pinned below the folder, directly or as what a pinned link
// holds.
[[nodiscard]] std::set<std::uint32_t> pinned_programs(const std::string& pin_dir);

}  // namespace sidetrack::ctl
