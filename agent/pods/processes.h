// SPDX-License-Identifier: Apache-2.0
// The processes of pods on this node, by /proc: how pods are found that were there before us, or
// came past the CNI plugin. Reads only; a process that ends meanwhile is left out.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::pods {

struct PodProcess {
  std::int64_t pid = 0;
  std::string container_id;
  ino_t netns = 0;           // inode of its /proc/PID/ns/net
  std::string command_line;  // words separated by NUL, the first 4 KiB
  // When it was started; nothing: not known.
  std::optional<std::chrono::steady_clock::time_point> started{};
};

struct NodeProcesses {
  // Those in pods' cgroups, keyed by pod uid as the API has it (pod_cgroup.h).
  std::map<std::string, std::vector<PodProcess>> of_pods;
  // Sandboxes (outside_sandbox_of) in no pod's cgroup and not in our network namespace: by default
  // Kata runs its virtual machines in a cgroup of their own, but in the pod's network namespace.
  std::vector<PodProcess> outside;
  // Why a process in a pod's cgroup could not be looked at, by the pod's uid: it is in neither.
  std::map<std::string, std::string> unseen;
};

// `proc` is /proc of the host. kPermission, kIo: it cannot be listed.
[[nodiscard]] Result<NodeProcesses> list_processes(const std::filesystem::path& proc = "/proc");

// Network namespaces by their inodes, each with its pod's uid as cgroups have it; empty: not known.
using RingsWanted = std::map<ino_t, std::string>;
struct RingHolders {
  std::set<ino_t> found;
  // Why a process of theirs could not be looked at: whether they have one is not known.
  std::map<ino_t, std::string> unseen;
};
// Which of these network namespaces have a process with a descriptor of an io_uring. One that it
// has closed, or only registered, is not seen. kPermission, kIo: it cannot be listed.
[[nodiscard]] Result<RingHolders> netns_with_io_uring(const RingsWanted& wanted,
                                                      const std::filesystem::path& proc = "/proc");

// Whether a process of a pod's cgroup is the sandbox of a runtime whose pods do not use the host's
// sockets: gVisor (runsc) or a virtual machine of Kata Containers. Returns its name, or nothing.
// Pure.
[[nodiscard]] std::string sandbox_of(std::string_view command_line);
// The same of a process that is in no pod's cgroup: no pod can have started it.
[[nodiscard]] std::string outside_sandbox_of(std::string_view command_line);

// Whether this is what holds a pod's namespaces and does nothing else. Pure.
[[nodiscard]] bool is_pause(std::string_view command_line);
// The start of a process, of the text of its /proc/PID/stat, which counts from the boot as
// CLOCK_BOOTTIME does. `suspended` is how far that is ahead of our clock. Pure.
[[nodiscard]] std::optional<std::chrono::steady_clock::time_point> start_of(
    std::string_view stat, long ticks_per_second, std::chrono::nanoseconds suspended);
// For how long this machine was suspended since its boot.
[[nodiscard]] std::chrono::nanoseconds suspended_since_boot();

}  // namespace sidetrack::pods
