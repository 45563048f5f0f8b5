// SPDX-License-Identifier: Apache-2.0
// Which objects of two sets are not the same. Pure.
#pragma once

#include "agent/kube/model.h"

namespace sidetrack::kube {

[[nodiscard]] ObjectKeys differences(const ObjectSet& before, const ObjectSet& now);

}  // namespace sidetrack::kube
