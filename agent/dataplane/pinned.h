// SPDX-License-Identifier: Apache-2.0
// What works by the pins alone, with or without an agent: nothing is loaded or attached. What is
// not pinned counts as zero. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::dataplane {

// The emergency switch: one map cell.
[[nodiscard]] Result<void> set_bypass(const std::string& pin_dir, bool on);
[[nodiscard]] Result<bool> bypass(const std::string& pin_dir);

// Who may have the pins: one agent that hangs (one that does not would redirect again), or nobody.
enum class Beside { kNobody, kAgentThatHangs };
// From now on no connection is redirected; open ones go on. kBusy: an agent has the pins.
[[nodiscard]] Result<void> stop_redirecting(const std::string& pin_dir,
                                            Beside beside = Beside::kNobody);
// Redirected connections that are still open, by the kernel's own count.
[[nodiscard]] Result<std::uint64_t> open_redirected(const std::string& pin_dir);
[[nodiscard]] Result<std::vector<std::uint64_t>> pinned_engine_cgroups(const std::string& pin_dir);
// The cgroup that the pinned programs are attached to; 0: none any more, or nothing is pinned.
[[nodiscard]] std::uint64_t pinned_cgroup(const std::string& pin_dir);
// One agent per pin folder, whatever its state folder is. kBusy: another one holds it. Given back
// with the descriptor.
[[nodiscard]] Result<UniqueFd> lock_pins(const std::string& pin_dir);
// Whether an agent runs that has these pins.
[[nodiscard]] bool are_in_use(const std::string& pin_dir);

}  // namespace sidetrack::dataplane
