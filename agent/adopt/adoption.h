// SPDX-License-Identifier: Apache-2.0
// The way of each pair, stage by stage: looked at, until its pods admit it, both ends put in and
// armed, taken out when it has become unsuitable. What pods admit, relays, readers that are owed
// a word, widening and what is noted in the kernel have classes of their own. One thread; time is
// passed in. The kernel holds the truth: an agent that restarts reads back what is adopted.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "agent/adopt/admission.h"
#include "agent/adopt/notes.h"
#include "agent/adopt/owed_readers.h"
#include "agent/adopt/pair_table.h"
#include "agent/adopt/relays.h"
#include "agent/adopt/widening.h"

namespace sidetrack::adopt {

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
  void on_owed(std::uint64_t cookie, Clock::time_point now) { owed_.add(cookie, now); }
  // Splice met bytes that skipped TCP: an error is better than the wrong order.
  void on_conflict(std::uint64_t netns_cookie, std::uint64_t cookie);
  // All marks that the sentinel has left, those of other sockets among them: an event that told of
  // one may have been lost.
  void on_marks(const std::vector<std::pair<std::uint64_t, st_mark>>& marks, Clock::time_point now);
  // Rows of pods may have changed.
  void on_policy_changed(Clock::time_point now);
  // What an earlier agent adopted.
  void restore(const std::vector<st_fast_live>& adopted, Clock::time_point now);
  // Does what is due.
  void tick(Clock::time_point now);

  [[nodiscard]] std::map<std::uint64_t, PodSummary> summaries() const;
  [[nodiscard]] std::uint64_t adopted() const;
  // Whether a socket is in the fast path, or on its way out.
  [[nodiscard]] bool has_any_in() const;
  // By the network namespace of the client (of an engine's client, its pod's).
  [[nodiscard]] std::map<std::uint64_t, std::uint64_t> adopted_by_client() const;
  // What is against every connection from the pod `client` to the pod `server`, or to an engine.
  // Begins a pass of admission, for the kernel's latest word on the pods.
  [[nodiscard]] st_fast_reason against(std::uint64_t client, std::optional<std::uint64_t> server,
                                       Clock::time_point now);
  // Sockets that were refused, by enum st_fast_reason.
  [[nodiscard]] const std::map<st_fast_reason, std::uint64_t>& refused() const { return refused_; }

 private:
  struct Answers {
    st_fast_reason client = ST_FAST_NONE, server = ST_FAST_NONE;
  };

  [[nodiscard]] std::vector<Answers> ask(const std::vector<Pair*>& pairs, st_adopt_op op);
  void look(const std::vector<Pair*>& pairs, Clock::time_point now);
  void wait(const std::vector<Pair*>& pairs, Clock::time_point now);
  void insert(const std::vector<Pair*>& pairs, Clock::time_point now);
  void leave(const std::vector<Pair*>& pairs, Clock::time_point now);
  void add(const Candidate& candidate, Clock::time_point now);
  void refuse(Pair& pair, st_fast_reason reason);
  void start_leaving(Pair& pair, st_fast_reason reason, Clock::time_point now);

  Sockets& sockets_;
  PairTable pairs_;
  Admission admission_;
  Relays relays_{sockets_, pairs_};
  OwedReaders owed_{sockets_, pairs_};
  Widening widening_{sockets_};
  Notes notes_{sockets_};
  std::map<std::uint64_t, st_fast_reason> last_refusal_;  // by netns cookie
  std::map<st_fast_reason, std::uint64_t> refused_;
};

}  // namespace sidetrack::adopt
