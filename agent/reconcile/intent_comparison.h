// SPDX-License-Identifier: Apache-2.0
// Whether a pod's new intent is another for the kernel and the engines than the one before; what is
// only shown of it does not count. Pure; for one pass over the pods, of which many share a policy.
#pragma once

#include <map>
#include <utility>

#include "agent/policy/policy.h"

namespace sidetrack::reconcile {

class IntentComparison {
 public:
  // Both of the same pod. The policies of all that are compared outlive this.
  [[nodiscard]] bool same(const policy::PodIntent& before, const policy::PodIntent& now);

 private:
  using Policy = const policy::CompiledPolicy*;
  [[nodiscard]] bool same_policy(Policy before, Policy now);

  std::map<std::pair<Policy, Policy>, bool> known_;
};

}  // namespace sidetrack::reconcile
