// SPDX-License-Identifier: Apache-2.0
// What one engine session was asked about each pod and what it answered: which pods are due, at
// most 64 unanswered, which answers are overdue, when a failed one is tried again. Pure: no I/O,
// the time is passed in. One thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "agent/engines/engine_server.h"

namespace sidetrack::engines {

class PodLedger {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kMaxUnanswered = 64;

  struct Request {
    std::uint64_t id = 0;
    bool reopen = false;  // ask for a reopen, else send the pod
  };

  explicit PodLedger(const Timings& timings) : timings_(timings) {}

  // The pod is new or changed: send it.
  void want(std::uint64_t netns_cookie);
  // Its listeners are to be opened again; a pod that was not sent yet is sent.
  void want_reopen(std::uint64_t netns_cookie);
  void forget(std::uint64_t netns_cookie);
  // Nothing is due any more; what is unanswered may still be answered.
  void stop_asking();

  // The pod to ask about now, taken off the queue. Follow with begin().
  [[nodiscard]] std::optional<std::uint64_t> next_due();
  // The request for this pod; it counts as unanswered from now on. nullopt: forgotten meanwhile.
  [[nodiscard]] std::optional<Request> begin(std::uint64_t netns_cookie, Clock::time_point now);
  // It could not be asked or did not answer; it is due again after its delay.
  void fail(std::uint64_t netns_cookie, Clock::time_point now);

  // False: nobody waits for this answer (an older request, a removed pod); ignore it. Request id 0
  // is the engine's own news.
  [[nodiscard]] bool answered(std::uint64_t netns_cookie, std::uint64_t request_id,
                              PodListeners listeners);
  [[nodiscard]] bool refused(std::uint64_t netns_cookie, std::uint64_t request_id,
                             Clock::time_point now);

  // Pods whose answer is overdue: they have failed. Retries whose delay is over become due.
  [[nodiscard]] std::vector<std::uint64_t> expire(Clock::time_point now);
  // When expire() has something to do next.
  [[nodiscard]] std::optional<Clock::time_point> next_expiry() const;

  [[nodiscard]] const PodListeners* listeners(std::uint64_t netns_cookie) const;
  [[nodiscard]] std::size_t unanswered() const { return unanswered_; }

 private:
  struct Entry {
    std::uint64_t request_id = 0;  // the last one, answered or not
    bool waiting = false;          // for its answer
    bool due = false;              // stands in due_
    bool reopen = false;
    std::chrono::milliseconds delay{0};
    std::optional<Clock::time_point> expiry;  // of the answer, or of the delay
    std::optional<PodListeners> listeners;
  };

  void make_due(std::uint64_t netns_cookie, Entry& entry);
  void settle(std::uint64_t netns_cookie, Entry& entry);
  void expire_at(std::uint64_t netns_cookie, Entry& entry, Clock::time_point when);

  Timings timings_;
  bool asking_ = true;
  std::uint64_t last_request_id_ = 0;
  std::size_t unanswered_ = 0;
  std::map<std::uint64_t, Entry> pods_;
  std::deque<std::uint64_t> due_;  // may name forgotten pods
  std::set<std::pair<Clock::time_point, std::uint64_t>> expiries_;
};

}  // namespace sidetrack::engines
