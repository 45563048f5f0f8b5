// SPDX-License-Identifier: Apache-2.0
// Decides which pairs skip TCP: looks at each, waits for their pods' probation, puts both
// ends in, arms them, links relays, and takes out what has become unsuitable. One thread; time is
// passed in. The kernel holds the truth: an agent that restarts reads back what is adopted.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "agent/adopt/pair.h"
#include "agent/adopt/ports.h"
#include "agent/adopt/workloads.h"

namespace sidetrack::adopt {

struct Settings {
  bool enabled = false;
  std::chrono::milliseconds probation{30000};
};

// What is to be shown of one pod.
struct PodSummary {
  std::uint64_t adopted = 0;             // connections
  std::uint64_t waiting = 0;             // those that may be adopted later
  st_fast_reason reason = ST_FAST_NONE;  // why the latest one that is not adopted is not
};

class Adoption {
 public:
  Adoption(Settings settings, Sockets& sockets, Pods& pods, Workloads& workloads);

  void set_settings(const Settings& settings, Clock::time_point now);

  // All pairs that there are now: new ones are looked at, those that are gone forgotten.
  void scan(const std::vector<Candidate>& candidates, Clock::time_point now);
  void on_link(const Link& link, Clock::time_point now);
  // The sentinel demoted a pod; it marked an adopted socket.
  void on_demoted(std::uint64_t netns_cookie, st_fast_reason reason, Clock::time_point now);
  void on_marked(std::uint64_t cookie, Clock::time_point now);
  // Bytes went by TCP behind some that wait past it: its reader is told again that it is readable,
  // once it has read the first and not come back for the others.
  void on_owed(std::uint64_t cookie, Clock::time_point now);
  // Splice met bytes that skipped TCP: an error is better than the wrong order.
  void on_conflict(std::uint64_t netns_cookie, std::uint64_t cookie);
  // Rows of pods may have changed.
  void on_policy_changed(Clock::time_point now);
  // What an earlier agent adopted.
  void restore(const std::vector<st_fast_live>& adopted, Clock::time_point now);
  // Does what is due.
  void tick(Clock::time_point now);

  [[nodiscard]] std::map<std::uint64_t, PodSummary> summaries() const;
  [[nodiscard]] std::uint64_t adopted() const;
  // By the network namespace of the client (of an engine's client, its pod's).
  [[nodiscard]] std::map<std::uint64_t, std::uint64_t> adopted_by_client() const;
  // Sockets that were refused, by enum st_fast_reason.
  [[nodiscard]] const std::map<st_fast_reason, std::uint64_t>& refused() const { return refused_; }

 private:
  using Pairs = std::map<std::uint64_t, Pair>;  // by the client's cookie

  struct Answers {
    st_fast_reason client = ST_FAST_NONE, server = ST_FAST_NONE;
  };

  [[nodiscard]] std::vector<Answers> ask(const std::vector<Pair*>& pairs, st_adopt_op op);
  [[nodiscard]] st_fast_reason policy_on(const Pair& pair, Clock::time_point now,
                                         Clock::time_point* until);
  [[nodiscard]] st_fast_reason policy_of_pod(const Pod& pod, std::uint64_t netns_cookie,
                                             Clock::time_point now, Clock::time_point* until) const;
  [[nodiscard]] const std::optional<Pod>& pod(std::uint64_t netns_cookie);
  [[nodiscard]] std::map<Stage, std::vector<Pair*>> take_due(Clock::time_point now);
  void look(const std::vector<Pair*>& pairs, Clock::time_point now);
  void wait(const std::vector<Pair*>& pairs, Clock::time_point now);
  void insert(const std::vector<Pair*>& pairs, Clock::time_point now);
  void leave(const std::vector<Pair*>& pairs, Clock::time_point now);
  void add(const Candidate& candidate, Clock::time_point now);
  void refuse(Pair& pair, st_fast_reason reason);
  void start_leaving(Pair& pair, st_fast_reason reason, Clock::time_point now);
  void move_to(Pair& pair, Stage stage, Clock::time_point due);
  void set_due(Pair& pair, Clock::time_point due);
  void forget(std::uint64_t client_cookie);
  void connect_links(Clock::time_point now);
  void look_after_owed(Clock::time_point now);
  [[nodiscard]] Pair* find(std::uint64_t cookie);

  Settings settings_;
  Sockets& sockets_;
  Pods& pods_;
  Workloads& workloads_;
  Pairs pairs_;
  Clock::time_point next_due_ = Clock::time_point::max();  // of any pair, or earlier
  std::map<std::uint64_t, std::uint64_t> client_of_;       // either cookie -> client's cookie
  std::map<std::uint64_t, Clock::time_point> first_seen_;  // pods with traffic: probation began
  std::map<std::uint64_t, st_fast_reason> last_refusal_;   // by netns cookie
  struct PendingLink {
    Link link;
    Clock::time_point until;
  };
  std::vector<PendingLink> links_;
  struct Owed {
    Clock::time_point due;
    bool only_tcp_before = false;  // the last look found bytes of TCP only
  };
  std::map<std::uint64_t, Owed> owed_;  // by the reader's cookie
  std::map<st_fast_reason, std::uint64_t> refused_;
  std::map<std::uint64_t, std::optional<Pod>> asked_;  // what pods_ said in this pass
};

}  // namespace sidetrack::adopt
