// SPDX-License-Identifier: Apache-2.0
// The pods of this node as adoption asks for them: their rows, what the kernel saw of them, and
// which of them had an io_uring before the sentinel could see it. Only on the agent's thread.
#pragma once

#include <set>
#include <vector>

#include "agent/adopt/ports.h"
#include "agent/dataplane/dataplane.h"
#include "agent/kube/model.h"
#include "agent/main/adapters.h"
#include "agent/reconcile/reconciler.h"

namespace sidetrack::agent {

class KnownPods : public adopt::Pods {
 public:
  KnownPods(const dataplane::Dataplane& dataplane, RealNetns& netns,
            const reconcile::Reconciler& reconciler, const kube::ObjectSet& objects)
      : dataplane_(dataplane), netns_(netns), reconciler_(reconciler), objects_(objects) {}
  std::optional<adopt::Pod> pod(std::uint64_t netns_cookie) override;

  // Those that the fast path is on for, by their netns cookies.
  [[nodiscard]] std::set<std::uint64_t> taking_part() const;
  // Looks at the processes of those of `pods` that were not among the last ones: returns who has an
  // io_uring. For when the sentinel has begun to watch them.
  std::vector<std::uint64_t> find_io_uring(const std::set<std::uint64_t>& pods);

 private:
  const dataplane::Dataplane& dataplane_;
  RealNetns& netns_;
  const reconcile::Reconciler& reconciler_;
  const kube::ObjectSet& objects_;
  std::set<std::uint64_t> looked_at_;
  std::set<std::uint64_t> with_io_uring_;
};

}  // namespace sidetrack::agent
