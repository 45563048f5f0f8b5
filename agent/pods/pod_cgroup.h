// SPDX-License-Identifier: Apache-2.0
// Which pod and container a cgroup path is of. Knows both forms that kubelets make, cgroupfs
// ("/kubepods/burstable/pod1f2e-../4c1d..") and systemd ("/kubepods.slice/kubepods-burstable.slice/
// kubepods-burstable-pod1f2e_..slice/cri-containerd-4c1d...scope"), below any parent. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sidetrack::pods {

struct PodCgroup {
  // As the API has it, with dashes. Of a static pod: the hash that its mirror pod carries as
  // annotation kubernetes.io/config.hash.
  std::string pod_uid;
  std::string container_id;  // empty: the pod's own folder
  bool operator==(const PodCgroup&) const = default;
};

[[nodiscard]] std::optional<PodCgroup> parse_pod_cgroup(std::string_view path);

// The same of the text of a /proc/PID/cgroup: the first of its lines that is of a pod.
[[nodiscard]] std::optional<PodCgroup> parse_process_cgroups(std::string_view text);

}  // namespace sidetrack::pods
