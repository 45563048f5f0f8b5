// SPDX-License-Identifier: Apache-2.0
// Whether another mesh already redirects a pod: two redirections of one connection would meet.
// Pure.
#pragma once

#include <string>

#include "agent/kube/model.h"

namespace sidetrack::policy {

// What shows that the pod has a sidecar of Istio, Linkerd, Kuma or Consul: "annotation KEY",
// "container NAME"; empty = nothing does.
[[nodiscard]] std::string find_sidecar(const kube::Pod& pod);

// What shows that the node redirects the pod for Istio's ambient mode. `of_namespace` may be null.
[[nodiscard]] std::string find_ambient(const kube::Pod& pod, const kube::Namespace* of_namespace);

}  // namespace sidetrack::policy
