// SPDX-License-Identifier: Apache-2.0
#include "agent/engines/pod_ledger.h"

#include <algorithm>

namespace sidetrack::engines {

void PodLedger::make_due(std::uint64_t netns_cookie, Entry& entry) {
  if (!entry.due) {
    entry.due = true;
    due_.push_back(netns_cookie);
  }
}

// Takes back what waits for time to pass.
void PodLedger::settle(std::uint64_t netns_cookie, Entry& entry) {
  if (entry.waiting) {
    entry.waiting = false;
    --unanswered_;
  }
  if (entry.expiry) {
    expiries_.erase({*entry.expiry, netns_cookie});
    entry.expiry.reset();
  }
}

void PodLedger::expire_at(std::uint64_t netns_cookie, Entry& entry, Clock::time_point when) {
  entry.expiry = when;
  expiries_.insert({when, netns_cookie});
}

void PodLedger::want(std::uint64_t netns_cookie) {
  if (!asking_) {
    return;
  }
  Entry& entry = pods_[netns_cookie];
  entry.reopen = false;
  entry.delay = std::chrono::milliseconds{0};
  make_due(netns_cookie, entry);
}

void PodLedger::want_reopen(std::uint64_t netns_cookie) {
  const auto found = pods_.find(netns_cookie);
  if (!asking_ || found == pods_.end() || found->second.due) {
    return;
  }
  found->second.reopen = found->second.listeners.has_value();
  make_due(netns_cookie, found->second);
}

void PodLedger::forget(std::uint64_t netns_cookie) {
  const auto found = pods_.find(netns_cookie);
  if (found != pods_.end()) {
    settle(netns_cookie, found->second);
    pods_.erase(found);
  }
}

void PodLedger::stop_asking() {
  asking_ = false;
  due_.clear();
  for (auto& [cookie, entry] : pods_) {
    entry.due = false;
  }
}

std::optional<std::uint64_t> PodLedger::next_due() {
  while (!due_.empty() && unanswered_ < kMaxUnanswered) {
    const std::uint64_t cookie = due_.front();
    due_.pop_front();
    const auto found = pods_.find(cookie);
    if (found != pods_.end() && found->second.due) {
      found->second.due = false;
      return cookie;
    }
  }
  return std::nullopt;
}

std::optional<PodLedger::Request> PodLedger::begin(std::uint64_t netns_cookie,
                                                   Clock::time_point now) {
  const auto found = pods_.find(netns_cookie);
  if (found == pods_.end() || !asking_) {
    return std::nullopt;
  }
  Entry& entry = found->second;
  settle(netns_cookie, entry);
  entry.request_id = ++last_request_id_;
  entry.waiting = true;
  ++unanswered_;
  expire_at(netns_cookie, entry, now + timings_.answer);
  // A retry sends the pod: an engine that has lost it altogether cannot reopen it.
  return Request{.id = entry.request_id, .reopen = std::exchange(entry.reopen, false)};
}

void PodLedger::fail(std::uint64_t netns_cookie, Clock::time_point now) {
  const auto found = pods_.find(netns_cookie);
  if (found == pods_.end()) {
    return;
  }
  Entry& entry = found->second;
  settle(netns_cookie, entry);
  entry.delay = std::clamp(entry.delay * 2, timings_.retry_first, timings_.retry_last);
  if (asking_ && !entry.due) {
    expire_at(netns_cookie, entry, now + entry.delay);
  }
}

bool PodLedger::answered(std::uint64_t netns_cookie, std::uint64_t request_id,
                         PodListeners listeners) {
  const auto found = pods_.find(netns_cookie);
  if (found == pods_.end() || (request_id != 0 && request_id != found->second.request_id)) {
    return false;
  }
  Entry& entry = found->second;
  entry.listeners = std::move(listeners);
  // News of the engine's own do not answer a request that is on its way.
  if (request_id != 0 || !entry.waiting) {
    settle(netns_cookie, entry);
    entry.delay = std::chrono::milliseconds{0};
  }
  return true;
}

bool PodLedger::refused(std::uint64_t netns_cookie, std::uint64_t request_id,
                        Clock::time_point now) {
  const auto found = pods_.find(netns_cookie);
  if (found == pods_.end() ||
      (request_id != 0 && (request_id != found->second.request_id || !found->second.waiting))) {
    return false;
  }
  found->second.listeners.reset();
  if (request_id != 0 || !found->second.waiting) {
    fail(netns_cookie, now);
  }
  return true;
}

std::vector<std::uint64_t> PodLedger::expire(Clock::time_point now) {
  std::vector<std::uint64_t> overdue;
  while (!expiries_.empty() && expiries_.begin()->first <= now) {
    const std::uint64_t cookie = expiries_.begin()->second;
    Entry& entry = pods_.at(cookie);
    const bool unanswered = entry.waiting;
    settle(cookie, entry);
    if (unanswered) {
      overdue.push_back(cookie);
      fail(cookie, now);
    } else if (asking_) {
      make_due(cookie, entry);
    }
  }
  return overdue;
}

std::optional<PodLedger::Clock::time_point> PodLedger::next_expiry() const {
  return expiries_.empty() ? std::nullopt : std::optional(expiries_.begin()->first);
}

const PodListeners* PodLedger::listeners(std::uint64_t netns_cookie) const {
  const auto found = pods_.find(netns_cookie);
  return found == pods_.end() || !found->second.listeners ? nullptr : &*found->second.listeners;
}

}  // namespace sidetrack::engines
