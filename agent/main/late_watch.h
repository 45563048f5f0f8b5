// SPDX-License-Identifier: Apache-2.0
// Which pods ran for a while before they were captured although they were wanted: the node had
// rebooted and the agent came late, or no agent answered the CNI plugin. Judges each pod once, when
// its row is there and its processes were seen. Time is passed in. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/reconcile/reconciler.h"

namespace sidetrack::agent {

struct LatePod {
  std::string namespace_name, name;
  std::chrono::milliseconds late{};
};

class LateWatch {
 public:
  using Clock = reconcile::Clock;

  // `before`: the namespaces that an agent before this one enrolled.
  explicit LateWatch(std::set<std::string> before);

  // The namespaces that are enrolled now.
  void on_enrolled(const std::set<std::string>& namespaces, Clock::time_point now);

  // Those that were found to be late since the last look. `running_since`: the oldest process of a
  // pod, if any was seen.
  using RunningSince =
      std::function<std::optional<Clock::time_point>(const reconcile::PodStatus& pod)>;
  [[nodiscard]] std::vector<LatePod> look(const std::vector<reconcile::PodStatus>& pods,
                                          const RunningSince& running_since);

  // How late this pod was; nothing: it was not, or is not judged yet.
  [[nodiscard]] std::optional<std::chrono::milliseconds> late(std::uint64_t netns_cookie) const;
  [[nodiscard]] std::uint64_t total() const { return total_; }

 private:
  [[nodiscard]] std::optional<std::chrono::milliseconds> judge(const reconcile::PodStatus& pod,
                                                               Clock::time_point started) const;

  std::map<std::string, Clock::time_point> enrolled_since_;
  std::map<std::uint64_t, std::optional<std::chrono::milliseconds>> judged_;  // by netns cookie
  std::uint64_t total_ = 0;
};

}  // namespace sidetrack::agent
