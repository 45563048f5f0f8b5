// SPDX-License-Identifier: Apache-2.0
// Whether the pods of a pair let it skip TCP: the node's switch, their labels, what the sentinel
// saw of them or of another replica, and their probation. Says nothing of the sockets themselves.
// One thread; time is passed in.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "agent/adopt/pair.h"
#include "agent/adopt/ports.h"
#include "agent/adopt/workloads.h"

namespace sidetrack::adopt {

struct Settings {
  bool enabled = false;
  std::chrono::milliseconds probation{30000};
};

// The pods whose word counts: engines have none.
[[nodiscard]] std::vector<std::uint64_t> pods_of(const Pair& pair);

class Admission {
 public:
  Admission(Settings settings, Pods& pods, Workloads& workloads);

  void set_settings(const Settings& settings) { settings_ = settings; }
  [[nodiscard]] const Settings& settings() const { return settings_; }
  // From now on the kernel is asked anew, once for each pod.
  void begin_pass() { asked_.clear(); }
  [[nodiscard]] bool is_pod(std::uint64_t netns_cookie) { return pod(netns_cookie).has_value(); }
  // Its pods have traffic: where that is the first, their probation begins.
  void saw_traffic(const Pair& pair, Clock::time_point now);
  // The sentinel demoted this pod: so is its workload.
  void demote(std::uint64_t netns_cookie, st_fast_reason reason);
  // ST_FAST_NONE: nothing is against it. ST_FAST_PROBATION: until then, `until`.
  [[nodiscard]] st_fast_reason against(const Pair& pair, Clock::time_point now,
                                       Clock::time_point* until);
  // What is kept of pods that are gone.
  void prune();

 private:
  [[nodiscard]] const std::optional<Pod>& pod(std::uint64_t netns_cookie);
  [[nodiscard]] st_fast_reason against_pod(const Pod& pod, std::uint64_t netns_cookie,
                                           Clock::time_point now, Clock::time_point* until) const;

  Settings settings_;
  Pods& pods_;
  Workloads& workloads_;
  std::map<std::uint64_t, Clock::time_point> first_seen_;  // pods with traffic
  std::map<std::uint64_t, std::optional<Pod>> asked_;      // what pods_ said in this pass
};

}  // namespace sidetrack::adopt
