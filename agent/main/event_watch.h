// SPDX-License-Identifier: Apache-2.0
// What people should read as Kubernetes Events: pods that are wanted and not captured, objects that
// cannot be used, a node that is not as it should be. Decides what is said; how often is the
// sender's. Time is passed in. One thread.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/admin/views.h"
#include "agent/kube/api_event.h"
#include "agent/kube/model.h"
#include "agent/main/late_watch.h"
#include "agent/reconcile/reconciler.h"

namespace sidetrack::agent {

class EventWatch {
 public:
  using Clock = std::chrono::steady_clock;

  explicit EventWatch(std::string node_name) : node_name_(std::move(node_name)) {}

  // All that is wrong now. A pod is given some time to be captured before it counts.
  [[nodiscard]] std::vector<kube::ClusterEvent> look(const std::vector<reconcile::PodStatus>& pods,
                                                     const kube::ObjectSet& objects,
                                                     const std::vector<kube::Problem>& problems,
                                                     Clock::time_point now);

  // What has been wrong with the node itself for a minute, in one event: of the problems that
  // `sidetrackctl status` shows.
  [[nodiscard]] std::optional<kube::ClusterEvent> look_at_node(
      const std::vector<admin::ProblemView>& problems, Clock::time_point now);

  // Of a pod that ran before it was captured.
  [[nodiscard]] static kube::ClusterEvent captured_late(const LatePod& pod,
                                                        const kube::ObjectSet& objects);
  // Of the node itself.
  [[nodiscard]] kube::ClusterEvent degraded(std::string message) const;

 private:
  std::string node_name_;
  std::map<std::string, Clock::time_point> missing_since_;   // by namespace/name
  std::map<std::string, Clock::time_point> degraded_since_;  // by what is wrong
};

}  // namespace sidetrack::agent
