// SPDX-License-Identifier: Apache-2.0
// The two cgroups of an agent: where the programs attach, and the engine's own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agent/dataplane/others.h"
#include "agent/main/options.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

struct Cgroups {
  std::string attach_dir;
  std::string engine_dir;  // empty: no engine, or each one's own container
  bool engine_in_container = false;
  std::uint64_t attach_id = 0;
  std::uint64_t engine_id = 0;
};

// Finds and checks both, makes nothing. kInvalid: a choice that would redirect the engine to
// itself, capture nothing, or meet another installation; the message says which and why.
[[nodiscard]] Result<Cgroups> find_cgroups(const Options& options);
// The engine's, where it is ours to make and missing (engine_id is 0).
[[nodiscard]] Result<void> make_engine_cgroup(Cgroups& cgroups);

// The cgroup of the engine's container, checked as --engine-cgroup is; `pid` is the engine's.
[[nodiscard]] Result<std::string> container_cgroup(const Options& options, const Cgroups& cgroups,
                                                   std::int64_t pid);

// Where the programs attach: --cgroup, or the real root of cgroup2.
[[nodiscard]] Result<std::string> attach_dir(const Options& options);

// Whether the folder `dir`, a cgroup of this id, is the real root. kInvalid: it is only what a
// cgroup namespace shows as one. Pure.
[[nodiscard]] Result<void> check_root(const std::string& dir, std::uint64_t id);

// Where the agent makes the engine's cgroup when none is named.
[[nodiscard]] Result<std::string> default_engine_cgroup(const Options& options);

// Other installations that see connects of `dir`. The kernel detaches a program some milliseconds
// after its last pin went: one that was just uninstalled is waited for.
[[nodiscard]] Result<std::vector<dataplane::OtherInstallation>> others_that_stay(
    const Options& options, const std::string& dir);

// Moves a process. Nothing to do if it is there already.
[[nodiscard]] Result<void> move_to_cgroup(const std::string& dir, std::int64_t pid);

[[nodiscard]] Result<std::vector<std::int64_t>> processes_of(const std::string& dir);

}  // namespace sidetrack::agent
