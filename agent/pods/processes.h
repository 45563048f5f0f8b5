// SPDX-License-Identifier: Apache-2.0
// The processes of pods on this node, by /proc: how pods are found that were there before us, or
// came past the CNI plugin. Reads only; a process that ends meanwhile is left out.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
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
};

struct NodeProcesses {
  // Those in pods' cgroups, keyed by pod uid as the API has it (pod_cgroup.h).
  std::map<std::string, std::vector<PodProcess>> of_pods;
  // Sandboxes (outside_sandbox_of) in no pod's cgroup and not in our network namespace: by default
  // Kata runs its virtual machines in a cgroup of their own, but in the pod's network namespace.
  std::vector<PodProcess> outside;
};

// `proc` is /proc of the host. kPermission, kIo: it cannot be listed.
[[nodiscard]] Result<NodeProcesses> list_processes(const std::filesystem::path& proc = "/proc");

// Whether a process of a pod's cgroup is the sandbox of a runtime whose pods do not use the host's
// sockets: gVisor (runsc) or a virtual machine of Kata Containers. Returns its name, or nothing.
// Pure.
[[nodiscard]] std::string sandbox_of(std::string_view command_line);
// The same of a process that is in no pod's cgroup: no pod can have started it.
[[nodiscard]] std::string outside_sandbox_of(std::string_view command_line);

}  // namespace sidetrack::pods
