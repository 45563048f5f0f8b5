// SPDX-License-Identifier: Apache-2.0
// Other installations of Sidetrack on a cgroup: two that see the same connect() would redirect it
// twice. Looks only, changes nothing; needs no Dataplane. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::dataplane {

enum class Relation : std::uint8_t { kSame, kAbove, kBelow };

struct OtherInstallation {
  std::string cgroup_dir;  // what it is attached to
  Relation relation = Relation::kSame;
  std::uint32_t program_id = 0;  // its st_connect4
  std::string pin_dir;           // empty: in no bpf file system that this process sees
  bool agent_runs = false;       // only known with a pin_dir
};

// A self-test's cgroup, with its process id behind. Its programs see no connection but its own.
inline constexpr const char* kSelfTestCgroup = "sidetrack-selftest-";

// Those attached to the cgroup itself, to one above it or to one below it, in this order, whose
// program no link in `pin_dir` holds. Self-tests do not count.
[[nodiscard]] Result<std::vector<OtherInstallation>> other_installations(
    const std::string& cgroup_dir, const std::string& pin_dir);

// Whether an installation uses the cgroup as its engine's.
[[nodiscard]] Result<bool> is_engine_cgroup(const std::string& cgroup_dir);

}  // namespace sidetrack::dataplane
