// SPDX-License-Identifier: Apache-2.0
// In which cgroup2 folder a process is, also from within a container. Reads /proc; keeps nothing.
#pragma once

#include <cstdint>
#include <string>

#include "sidetrack/result.h"

namespace sidetrack::cgroup {

// The folder, on a mount that this process has. kNotFound: no such process, it is in no cgroup2, or
// none is mounted that shows it.
[[nodiscard]] Result<std::string> folder_of_process(std::int64_t pid);
// The id of this process's own folder, as BPF programs see it.
[[nodiscard]] Result<std::uint64_t> own_id();

// The folder of a process with this /proc/PID/cgroup, given that /proc/PID/mountinfo. Pure.
[[nodiscard]] Result<std::string> find_folder(const std::string& cgroup,
                                              const std::string& mountinfo);

// Where the whole of cgroup2 is mounted, given this /proc/PID/mountinfo: the first mount whose root
// is that of the hierarchy as the process sees it. kUnsupported: cgroup2 is mounted nowhere;
// kInvalid: only in part, as the container was made. Pure.
[[nodiscard]] Result<std::string> find_hierarchy(const std::string& mountinfo);
// The same of this process.
[[nodiscard]] Result<std::string> find_hierarchy();

// Sees cgroups as the host does, from now on and in threads made after it: a container on a pure
// cgroup2 node has a cgroup namespace of its own, whose paths start at the container. Needs the
// host's /proc (hostPID), CAP_SYS_ADMIN and CAP_SYS_PTRACE; does nothing where `host` is our own.
// kPermission: a right is missing.
[[nodiscard]] Result<void> join_host_namespace(const std::string& host = "/proc/1/ns/cgroup");

}  // namespace sidetrack::cgroup
