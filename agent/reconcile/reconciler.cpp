// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/reconciler.h"

#include <algorithm>
#include <set>
#include <utility>

#include "agent/reconcile/intent_comparison.h"

namespace sidetrack::reconcile {

namespace {

// A connect() that has read the old row may still be on its way to the listener.
constexpr std::chrono::milliseconds kLeaveGrace{2000};
constexpr std::chrono::milliseconds kFirstBackoff{250};
// How long rows of an earlier agent stay while the namespace of some pod is not known.
constexpr std::chrono::seconds kHeirPatience{60};
constexpr std::chrono::milliseconds kLastBackoff{30000};

std::string key_of(const policy::PodIntent& intent) {
  return intent.namespace_name + "/" + intent.name;
}

// Vetoes under which even the fact that the pod is known must not be written: its namespace is the
// node's.
bool has_own_netns(const policy::PodIntent& intent) {
  return !intent.netns_path.empty() && intent.reason != "host_network";
}

}  // namespace

Reconciler::Reconciler(Settings settings, KernelTables& kernel, EngineControl& engines,
                       NetnsReader& netns)
    : settings_(settings), kernel_(kernel), engines_(engines), netns_(netns) {}

void Reconciler::apply(std::vector<policy::PodIntent> intents, Clock::time_point now) {
  forget_policy_ids();
  first_apply_ = first_apply_.value_or(now);
  std::set<std::string> present;
  IntentComparison comparison;
  std::vector<policy::PodIntent> replaced;  // `comparison` knows policies by their addresses
  for (policy::PodIntent& intent : intents) {
    const std::string key = key_of(intent);
    present.insert(key);
    const auto [found, is_new] = entries_.try_emplace(key);
    Entry& entry = found->second;
    if (!is_new && entry.intent.state != policy::PodState::kEnrol) {
      entry.wanted_since = now;
    }
    // Every row is compared with the kernel by audit(); here those that are to be others. A path
    // is a number of a descriptor, which is used again: the same text can be another namespace.
    if (is_new || !comparison.same(entry.intent, intent) ||
        (entry.facts && netns_.identify(intent.netns_path) != entry.file)) {
      entry.retry_at = now;
    }
    replaced.push_back(std::exchange(entry.intent, std::move(intent)));
    entry.wanted = true;
  }
  for (auto& [key, entry] : entries_) {
    if (!present.contains(key) && entry.wanted) {
      // Its namespace may live on: then nothing of it is cut (tick() sees when it goes).
      entry.wanted = false;
      entry.intent.state = policy::PodState::kSkipped;
      entry.intent.reason = "deleted";
      entry.retry_at = now;
    }
  }
  // Pods that leave come first: another may now own their namespace.
  for (const bool wanted : {false, true}) {
    for (auto& [key, entry] : entries_) {
      const bool is_due = entry.retry_at <= now || !entry.reason.empty();
      if (entry.wanted == wanted && is_due) {
        step(key, entry, now);
      }
    }
  }
}

void Reconciler::fail(Entry& entry, Clock::time_point now, std::string reason, std::string detail) {
  entry.reason = std::move(reason);
  entry.detail = std::move(detail);
  entry.backoff = std::clamp(entry.backoff * 2, kFirstBackoff, kLastBackoff);
  entry.retry_at = now + entry.backoff;
}

void Reconciler::place_at_engine(Entry& entry, Clock::time_point now) {
  if (settings_.engine != EngineKind::kEmbedded) {
    return;
  }
  // What listened while lo is down could have no listener for IPv6, or none.
  const bool wanted = entry.intent.state == policy::PodState::kEnrol &&
                      entry.intent.mode == ST_MODE_REDIRECT && entry.facts->loopback_up;
  if (wanted) {
    entry.leave_engine_at.reset();
    entry.at_engine = true;
    engines_.upsert_pod({.netns_cookie = entry.facts->cookie,
                         .namespace_name = entry.intent.namespace_name,
                         .name = entry.intent.name,
                         .reserved_ports = entry.intent.container_ports});
  } else if (entry.at_engine && !entry.leave_engine_at) {
    entry.leave_engine_at = now + kLeaveGrace;
  }
}

Result<void> Reconciler::write_row(Entry& entry, Clock::time_point now) {
  const policy::PodIntent& intent = entry.intent;
  std::uint32_t policy_id = 0;
  if (intent.state == policy::PodState::kEnrol && intent.compiled && !intent.compiled->empty()) {
    const auto known = policy_ids_.find(intent.compiled.get());
    if (known != policy_ids_.end()) {
      policy_id = known->second;
    } else {
      auto acquired = kernel_.acquire_policy(*intent.compiled);
      ST_TRY(acquired);
      policy_id = policy_ids_[intent.compiled.get()] = *acquired;
    }
  }
  // Before the row: a pod's first connections have its options.
  ST_TRY(kernel_.set_tuning(
      entry.facts->cookie, intent.state == policy::PodState::kEnrol ? intent.tuning : st_tuning{}));
  // No slot left is no reason to leave a pod out: it counts under slot 0.
  const auto slot = kernel_.namespace_slot(intent.namespace_name);
  auto in_kernel = kernel_.pod(entry.facts->cookie);
  ST_TRY(in_kernel);
  const st_pod row = build_row({.intent = intent,
                                .facts = *entry.facts,
                                .engine = settings_.engine,
                                .external_v4 = settings_.external_v4,
                                .external_v6 = settings_.external_v6,
                                .policy_id = policy_id,
                                .namespace_slot = slot ? *slot : 0,
                                .listeners = engines_.listeners(entry.facts->cookie),
                                .in_kernel = *in_kernel});
  if (*in_kernel && same_row(**in_kernel, row)) {
    entry.row = row;
    return {};
  }
  ST_TRY(kernel_.upsert_pod(entry.facts->cookie, row));
  auto read_back = kernel_.pod(entry.facts->cookie);
  ST_TRY(read_back);
  if (!*read_back) {
    return make_error(ErrorCode::kInternal, "the row was written and is not there");
  }
  if (!entry.row && row.mode != ST_MODE_DISABLED &&
      (!*in_kernel || (**in_kernel).mode == ST_MODE_DISABLED)) {
    entry.captured_at = now;
  }
  entry.row = **read_back;
  return {};
}

void Reconciler::step(const std::string& key, Entry& entry, Clock::time_point now) {
  if (!has_own_netns(entry.intent)) {
    release(entry, false);
    return;
  }
  if (!look_at_netns(key, entry, now)) {
    return;
  }
  place_at_engine(entry, now);
  if (auto written = write_row(entry, now); !written) {
    fail(entry, now, written.error().code == ErrorCode::kFull ? "map_full" : "map_write_failed",
         written.error().message);
    return;
  }
  entry.reason.clear();
  entry.detail.clear();
  entry.backoff = std::chrono::milliseconds(0);
  entry.retry_at = Clock::time_point::max();
}

void Reconciler::release(Entry& entry, bool cut) {
  if (!entry.facts) {
    return;
  }
  const std::uint64_t cookie = entry.facts->cookie;
  if (auto erased = kernel_.erase_pod(cookie); !erased) {
    entry.detail = erased.error().message;  // audit() removes rows that nobody wants
  }
  // With the namespace go also connections of a pod that the engine had been told to leave before.
  if (entry.at_engine || cut) {
    engines_.remove_pod(cookie, cut);
  }
  keys_.erase(cookie);
  entry.facts.reset();
  entry.row.reset();
  entry.captured_at.reset();
  entry.file.reset();
  entry.at_engine = false;
  entry.leave_engine_at.reset();
}

void Reconciler::on_listening(std::uint64_t netns_cookie, Clock::time_point now) {
  if (Entry* entry = find(netns_cookie); entry != nullptr) {
    entry->engine_failure.clear();
    step(keys_.at(netns_cookie), *entry, now);
  }
}

void Reconciler::on_listen_failed(std::uint64_t netns_cookie, const std::string& reason) {
  if (Entry* entry = find(netns_cookie); entry != nullptr) {
    entry->engine_failure = reason;
  }
}

void Reconciler::on_engines_changed(Clock::time_point now) {
  forget_policy_ids();
  for (auto& [key, entry] : entries_) {
    if (entry.facts) {
      step(key, entry, now);
    }
  }
}

void Reconciler::on_listener_lost(std::uint64_t netns_cookie, Clock::time_point now) {
  Entry* entry = find(netns_cookie);
  if (entry == nullptr || !entry->at_engine || entry->leave_engine_at) {
    return;
  }
  step(keys_.at(netns_cookie), *entry, now);
  reopen_lost(*entry);
}

void Reconciler::reopen_lost(const Entry& entry) {
  if (!entry.row || !entry.at_engine || entry.leave_engine_at || !has_lost_listener(*entry.row)) {
    return;
  }
  // Without an answer the row still names those of an engine that is gone: the next one opens its
  // own when it registers, and opening them a second time would close the first under connections.
  if (engines_.listeners(entry.facts->cookie)) {
    engines_.reopen_pod(entry.facts->cookie);
  }
}

std::size_t Reconciler::audit(Clock::time_point now) {
  std::size_t repairs = 0;
  auto rows = kernel_.pods();
  if (!rows) {
    return 0;
  }
  forget_policy_ids();
  std::map<std::uint64_t, st_pod> in_kernel;
  const bool knows_all = knows_every_pod(now);
  for (const auto& [cookie, row] : *rows) {
    in_kernel[cookie] = row;
    if (knows_all && !keys_.contains(cookie) && cookie != settings_.node_netns_cookie &&
        kernel_.erase_pod(cookie)) {
      ++repairs;
    }
  }
  for (auto& [key, entry] : entries_) {
    if (!entry.facts) {
      continue;
    }
    const auto found = in_kernel.find(entry.facts->cookie);
    const bool was_written = entry.row.has_value();
    step(key, entry, now);
    // A listener that the kernel has seen close meanwhile is no repair.
    const bool differed =
        found == in_kernel.end() ||
        (entry.row && !same_row(found->second, *entry.row) && !has_lost_listener(*entry.row));
    repairs += was_written && entry.reason.empty() && differed ? 1 : 0;
    reopen_lost(entry);
  }
  kernel_.collect_policies();
  return repairs;
}

// An agent that has just come finds some pods later than others; what an earlier one wrote for them
// stays until then.
bool Reconciler::knows_every_pod(Clock::time_point now) const {
  if (!first_apply_ || now - *first_apply_ >= kHeirPatience) {
    return true;
  }
  return std::none_of(entries_.begin(), entries_.end(), [](const auto& one) {
    const Entry& entry = one.second;
    return entry.wanted && !entry.facts && entry.intent.state == policy::PodState::kEnrol;
  });
}

Reconciler::Entry* Reconciler::find(std::uint64_t netns_cookie) {
  const auto key = keys_.find(netns_cookie);
  return key == keys_.end() ? nullptr : &entries_.at(key->second);
}

}  // namespace sidetrack::reconcile
