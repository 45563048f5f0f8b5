// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/intent_comparison.h"

#include <algorithm>
#include <cstring>

namespace sidetrack::reconcile {

bool IntentComparison::same(const policy::PodIntent& before, const policy::PodIntent& now) {
  const auto same_address = [](const st_addr& a, const st_addr& b) {
    return st_addr_equal(&a, &b) != 0;
  };
  return before.state == now.state && before.reason == now.reason &&
         before.netns_path == now.netns_path && before.mode == now.mode &&
         before.fast_path == now.fast_path && before.on_engine_loss == now.on_engine_loss &&
         before.container_ports == now.container_ports &&
         std::memcmp(&before.tuning, &now.tuning, sizeof(now.tuning)) == 0 &&
         std::equal(before.addresses.begin(), before.addresses.end(), now.addresses.begin(),
                    now.addresses.end(), same_address) &&
         same_policy(before.compiled.get(), now.compiled.get());
}

bool IntentComparison::same_policy(Policy before, Policy now) {
  if (before == now || before == nullptr || now == nullptr) {
    return before == now;
  }
  const auto [known, is_new] = known_.try_emplace({before, now});
  if (is_new) {
    known->second = *before == *now;
  }
  return known->second;
}

}  // namespace sidetrack::reconcile
