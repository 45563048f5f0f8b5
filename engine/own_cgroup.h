// SPDX-License-Identifier: Apache-2.0
// The id of the cgroup2 folder that this process is in, as BPF programs see it.
#pragma once

#include <cstdint>
#include <string>

#include "sidetrack/result.h"

namespace sidetrack::engine {

// Reads /proc/self/cgroup and /proc/self/mountinfo. kNotFound: no cgroup2 is mounted.
[[nodiscard]] Result<std::uint64_t> own_cgroup_id();

// The folder of a process with this /proc/PID/cgroup, given that /proc/PID/mountinfo. Pure.
[[nodiscard]] Result<std::string> cgroup_folder(const std::string& cgroup,
                                                const std::string& mountinfo);

}  // namespace sidetrack::engine
