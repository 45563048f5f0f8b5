// SPDX-License-Identifier: Apache-2.0
// Gives the pods of the API (source kubernetes) their network namespaces: NetnsTable, asked about
// the pods of one set of objects. Only on the agent's thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/kube/model.h"
#include "agent/pods/netns_table.h"
#include "agent/policy/policy.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

// What the kubelet and its cgroups call this pod: for a static pod not the uid of its mirror pod.
[[nodiscard]] const std::string& kubelet_uid(const kube::Pod& pod);

// Those of the node that have, or will have, a namespace of their own.
[[nodiscard]] std::vector<pods::KnownPod> known_pods(const kube::ObjectSet& objects,
                                                     const std::string& node_name);

class PodNetns {
 public:
  PodNetns(pods::NetnsTable::System system, std::string node_name)
      : table_(std::move(system)), node_name_(std::move(node_name)) {}

  [[nodiscard]] pods::NetnsTable& table() { return table_; }
  // Whether a pod's namespace is another one now: then the intents have to be filled in again.
  bool look(const kube::ObjectSet& objects, pods::Clock::time_point now) {
    return table_.look(known_pods(objects, node_name_), now);
  }
  // Writes netns_path or netns_problem of each, the addresses that the plugin told of, and takes
  // pods whose runtime has sockets of its own out (reason sandboxed_runtime).
  void fill(const kube::ObjectSet& objects, std::vector<policy::PodIntent>& intents) const;

 private:
  pods::NetnsTable table_;
  std::string node_name_;
};

}  // namespace sidetrack::agent
