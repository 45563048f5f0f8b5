// SPDX-License-Identifier: Apache-2.0
#include "agent/main/held.h"

namespace sidetrack::agent {

namespace {

const char* in_use_until_then(InForce in_force) {
  switch (in_force) {
    case InForce::kEarlierAgent:
      return "until all can be read, what the earlier agent enforced stays in force, unchanged";
    case InForce::kNothing:
      return "nothing is enforced until all can be read";
    case InForce::kObjects:
      break;
  }
  return "the reason says what is in use until then";
}

}  // namespace

std::string held_reason(InForce in_force) {
  if (in_force == InForce::kObjects) {
    return "";
  }
  return std::string("the objects cannot be read completely since this agent started: ") +
         in_use_until_then(in_force);
}

admin::ProblemView object_problem(const kube::Problem& problem, InForce in_force) {
  return {.severity = problem.warning ? "warning" : "error",
          .object = problem.object,
          .key = problem.key,
          .value = problem.value,
          .reason = problem.reason,
          .action = std::string("correct the object; ") + in_use_until_then(in_force),
          .from_object = !problem.of_source};
}

}  // namespace sidetrack::agent
