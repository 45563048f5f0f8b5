// SPDX-License-Identifier: Apache-2.0
#include "agent/main/problem_log.h"

#include <algorithm>

#include "sidetrack/log/log.h"

namespace sidetrack::agent {

namespace {

constexpr std::size_t kMostLogged = 100;

}  // namespace

void log_problems(std::string_view component, const std::vector<kube::Problem>& problems,
                  StatusHas has) {
  const std::size_t logged = std::min(problems.size(), kMostLogged);
  for (std::size_t i = 0; i < logged; ++i) {
    const kube::Problem& problem = problems[i];
    log_event(LogLevel::kWarn, component, "problem",
              {{"object", problem.object},
               {"key", problem.key},
               {"value", problem.value},
               {"reason", problem.reason}});
  }
  if (logged == problems.size()) {
    return;
  }
  const LogField more("problems", problems.size() - logged);
  if (has == StatusHas::kAll) {
    log_event(LogLevel::kWarn, component, "more_problems",
              {more, {"detail", "sidetrackctl status -o json has all"}});
  } else {
    log_event(LogLevel::kWarn, component, "more_problems", {more});
  }
}

}  // namespace sidetrack::agent
