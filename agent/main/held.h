// SPDX-License-Identifier: Apache-2.0
// What is said while an agent cannot read its objects since it started: nothing of them is in use,
// also of those that can be read. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "agent/admin/views.h"
#include "agent/kube/model.h"

namespace sidetrack::agent {

enum class InForce : std::uint8_t {
  kObjects,       // not held
  kEarlierAgent,  // held: what the agent before this one left in the kernel
  kNothing,       // held, and there was none
};

// Why it is held; empty: it is not.
[[nodiscard]] std::string held_reason(InForce in_force);

// A problem of the source's or the policy's, with what to do.
[[nodiscard]] admin::ProblemView object_problem(const kube::Problem& problem, InForce in_force);

}  // namespace sidetrack::agent
