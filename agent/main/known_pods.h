// SPDX-License-Identifier: Apache-2.0
// The pods of this node as adoption asks for them: their rows, what the kernel saw of them, and
// which of them had an io_uring before the sentinel could see it. Only on the agent's thread.
#pragma once

#include <optional>
#include <set>

#include "agent/adopt/ports.h"
#include "agent/dataplane/dataplane.h"
#include "agent/kube/model.h"
#include "agent/main/adapters.h"
#include "agent/main/ring_looks.h"
#include "agent/reconcile/reconciler.h"

namespace sidetrack::agent {

class KnownPods : public adopt::Pods {
 public:
  KnownPods(const dataplane::Dataplane& dataplane, RealNetns& netns,
            const reconcile::Reconciler& reconciler, const kube::ObjectSet& objects)
      : dataplane_(dataplane), netns_(netns), reconciler_(reconciler), objects_(objects) {}
  std::optional<adopt::Pod> pod(std::uint64_t netns_cookie) override;

  // A pod of the workload that the sentinel has demoted itself, "NAMESPACE/POD": as long as it
  // runs its workload is demoted again.
  [[nodiscard]] std::optional<std::string> demoted_of(const std::string& workload);
  // Those that the fast path is on for, by their netns cookies.
  [[nodiscard]] std::set<std::uint64_t> taking_part() const;
  // Looks at the processes of those of `pods` that were not looked at yet: returns who has an
  // io_uring. For when the sentinel has begun to watch them.
  RingLooks::News find_io_uring(const std::set<std::uint64_t>& pods,
                                RingLooks::Clock::time_point now) {
    return rings_.look(
        pods, [this](std::uint64_t cookie) { return place_of(cookie); }, now);
  }

 private:
  // The API's object of a pod; nullptr: it is gone.
  [[nodiscard]] const kube::Pod* object_of(const reconcile::Reconciler::Owner& owner) const;
  [[nodiscard]] std::optional<RingLooks::Place> place_of(std::uint64_t netns_cookie) const;

  const dataplane::Dataplane& dataplane_;
  RealNetns& netns_;
  const reconcile::Reconciler& reconciler_;
  const kube::ObjectSet& objects_;
  RingLooks rings_{[](const auto& wanted) { return pods::netns_with_io_uring(wanted); }};
};

}  // namespace sidetrack::agent
