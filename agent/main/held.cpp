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

std::string what_to_do(const kube::Problem& problem) {
  if (!problem.of_source) {
    return "correct the object; ";
  }
  // The others are of what it says or of the cache, and have in their reason what becomes of them.
  return problem.object.starts_with("API server ")
             ? "see that it answers there: the address is --kubeconfig's, in a pod that of "
               "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT (the chart's "
               "kubernetes.apiServerHost and kubernetes.apiServerPort); it is asked again by "
               "itself; "
             : "no object is at fault; ";
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
          .action = what_to_do(problem) + in_use_until_then(in_force),
          .from_object = !problem.of_source};
}

}  // namespace sidetrack::agent
