// SPDX-License-Identifier: Apache-2.0
// The reconciler's looks at network namespaces: whose they are, and whether they are still there.
#include <algorithm>
#include <utility>

#include "agent/reconcile/reconciler.h"

namespace sidetrack::reconcile {

namespace {

// Namespaces looked into again per tick: a path can lead to another namespace with the same inode
// number.
constexpr std::size_t kInspectionsPerTick = 25;
// How old a list of addresses gets when no route has changed; the oldest has its turn, one per
// tick.
constexpr std::chrono::seconds kAddressesAge{30};
constexpr std::size_t kMaxOwners = 16384;

}  // namespace

bool Reconciler::look_at_netns(const std::string& key, Entry& entry, Clock::time_point now) {
  // The same path may lead to another namespace by now.
  if (entry.facts && entry.path == entry.intent.netns_path &&
      netns_.identify(entry.path) == entry.file) {
    return true;
  }
  release(entry, true);
  const auto file = netns_.identify(entry.intent.netns_path);
  auto facts = netns_.inspect(entry.intent.netns_path, nullptr);
  if (!facts || !file) {
    entry.file = file;
    fail(entry, now, "netns_unreachable",
         facts ? "netns " + entry.intent.netns_path + " is gone" : facts.error().message);
    return false;
  }
  if (facts->cookie == settings_.node_netns_cookie) {
    fail(entry, now, "node_netns", "netns " + entry.intent.netns_path + " is the node's own");
    return false;
  }
  if (const auto other = keys_.find(facts->cookie); other != keys_.end() && other->second != key) {
    Entry& owner = entries_.at(other->second);
    if (owner.wanted) {
      fail(entry, now, "netns_shared",
           "netns " + entry.intent.netns_path + " is already that of pod " + other->second);
      return false;
    }
    // The object was deleted and made again under another name: the namespace changes hands, its
    // connections live on.
    entry.at_engine = std::exchange(owner.at_engine, false);
    owner.facts.reset();
    owner.row.reset();
    owner.leave_engine_at.reset();
  }
  entry.facts = *facts;
  entry.file = file;
  entry.path = entry.intent.netns_path;
  entry.listed_at = now;
  keys_[facts->cookie] = key;
  if (owners_.size() >= kMaxOwners) {
    // Cookies grow: the oldest that is gone goes.
    const auto gone = std::find_if(owners_.begin(), owners_.end(), [this](const auto& owner) {
      return !keys_.contains(owner.first);
    });
    if (gone != owners_.end()) {
      owners_.erase(gone);
    }
  }
  owners_[facts->cookie] = Owner{entry.intent.namespace_name, entry.intent.name};
  return true;
}

void Reconciler::tick(Clock::time_point now) {
  look_at_all(now, kInspectionsPerTick);
}

void Reconciler::on_netns_changed(Clock::time_point now) {
  look_at_all(now, 0);
}

const Reconciler::Entry* Reconciler::due_for_listing(Clock::time_point now) const {
  const Entry* oldest = nullptr;
  for (const auto& [key, entry] : entries_) {
    if (entry.facts && now - entry.listed_at >= kAddressesAge &&
        (oldest == nullptr || entry.listed_at < oldest->listed_at)) {
      oldest = &entry;
    }
  }
  return oldest;
}

bool Reconciler::look_into(Entry& entry, Clock::time_point now, bool lists) {
  const auto facts = netns_.inspect(entry.path, lists ? nullptr : &*entry.facts);
  if (lists) {
    entry.listed_at = now;
  }
  // Not to be looked into (out of files, say) is not gone: its file is still there.
  const bool same = !facts || facts->cookie == entry.facts->cookie;
  if (facts && same && *facts != *entry.facts) {
    entry.facts = *facts;
    entry.retry_at = now;
  }
  return same;
}

void Reconciler::look_at_all(Clock::time_point now, std::size_t inspections) {
  forget_policy_ids();
  std::size_t index = 0;
  const Entry* due = inspections == 0 ? nullptr : due_for_listing(now);
  const std::size_t first = entries_.empty() ? 0 : next_inspection_ % entries_.size();
  next_inspection_ = first + inspections;
  for (auto it = entries_.begin(); it != entries_.end(); ++index) {
    auto& [key, entry] = *it;
    if (entry.facts) {
      const auto file = netns_.identify(entry.path);
      bool same = file == entry.file;
      const bool lists = &entry == due;
      const bool has_turn = lists || (index >= first && index < first + inspections);
      if (same && (has_turn || (inspections != 0 && !entry.facts->loopback_up))) {
        same = look_into(entry, now, lists);
      }
      if (!same) {
        release(entry, true);
        entry.retry_at = now;
      }
    }
    if (entry.leave_engine_at && *entry.leave_engine_at <= now && entry.facts) {
      engines_.remove_pod(entry.facts->cookie, false);
      entry.at_engine = false;
      entry.leave_engine_at.reset();
    }
    if (!entry.wanted && !entry.facts) {
      it = entries_.erase(it);
      continue;
    }
    const bool appeared = !entry.facts && entry.reason == "netns_unreachable" &&
                          netns_.identify(entry.intent.netns_path) != entry.file;
    if (entry.retry_at <= now || appeared) {
      step(key, entry, now);
    }
    ++it;
  }
}

}  // namespace sidetrack::reconcile
