// SPDX-License-Identifier: Apache-2.0
#include "agent/main/pod_netns.h"

namespace sidetrack::agent {

const std::string& kubelet_uid(const kube::Pod& pod) {
  const auto hash = pod.metadata.annotations.find("kubernetes.io/config.hash");
  const bool is_mirror = pod.metadata.annotations.contains("kubernetes.io/config.mirror");
  return is_mirror && hash != pod.metadata.annotations.end() ? hash->second : pod.metadata.uid;
}

std::vector<pods::KnownPod> known_pods(const kube::ObjectSet& objects,
                                       const std::string& node_name) {
  std::vector<pods::KnownPod> known;
  for (const auto& [key, pod] : objects.pods) {
    const bool finished = pod.phase == "Succeeded" || pod.phase == "Failed";
    if (pod.node_name == node_name && !pod.host_network && !finished) {
      known.push_back({.uid = kubelet_uid(pod),
                       .addresses = pod.addresses,
                       .has_runtime_class = !pod.runtime_class.empty()});
    }
  }
  return known;
}

void PodNetns::fill(const kube::ObjectSet& objects, std::vector<policy::PodIntent>& intents) const {
  for (policy::PodIntent& intent : intents) {
    const auto pod = objects.pods.find(intent.namespace_name + "/" + intent.name);
    if (pod == objects.pods.end()) {
      continue;
    }
    pods::NetnsPlace place = table_.place(kubelet_uid(pod->second));
    intent.netns_path = std::move(place.path);
    intent.netns_problem = std::move(place.problem);
    if (auto addresses = policy::parse_addresses(place.addresses); !addresses.empty()) {
      intent.addresses = std::move(addresses);
    }
    // What processes look like is for the pod to choose; its runtime class is not.
    const bool may_be_sandboxed = !pod->second.runtime_class.empty();
    intent.runtime_unseen = may_be_sandboxed && !intent.netns_path.empty() && !place.has_run;
    intent.runtime_problem = std::move(place.unseen);
    if (may_be_sandboxed && !place.sandbox.empty() && intent.state == policy::PodState::kEnrol) {
      intent.state = policy::PodState::kSkipped;
      intent.reason = "sandboxed_runtime";
      intent.reason_detail =
          "its runtime (" + place.sandbox +
          ") gives it sockets that are not the node's: they cannot be redirected";
    }
  }
}

}  // namespace sidetrack::agent
