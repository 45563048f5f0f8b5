// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/adoption.h"

#include <algorithm>
#include <set>

#include "sidetrack/log/log.h"

namespace sidetrack::adopt {

namespace {

constexpr unsigned kLooks = 8;  // at a pair that may become suitable
constexpr std::chrono::milliseconds kLookAgain{50};
constexpr std::chrono::milliseconds kLookSlowest{2000};  // at one that may take its time
constexpr std::chrono::milliseconds kLeaveAgain{20};
constexpr std::chrono::milliseconds kLeaveSlowest{1000};
constexpr std::chrono::seconds kStillOpen{30};  // how often a waiting pair is looked at
constexpr std::chrono::seconds kLinkPatience{60};
constexpr Clock::time_point kNever = Clock::time_point::max();

bool may_be_lifted(st_fast_reason reason) {
  return reason == ST_FAST_NODE_OFF || reason == ST_FAST_POD_OFF ||
         reason == ST_FAST_OTHER_NAMESPACE || reason == ST_FAST_NO_SENTINEL;
}

// What an earlier agent knew of the pair of an adopted socket.
Candidate candidate_of(const st_fast_live& row) {
  const st_fast& state = row.state;
  const bool is_client = state.side == ST_SIDE_CLIENT;
  Candidate candidate{.key = state.key, .kind = state.kind};
  candidate.end[is_client ? ST_SIDE_CLIENT : ST_SIDE_SERVER] = {
      .cookie = state.cookie, .netns_cookie = state.netns_cookie, .sock = row.sock};
  candidate.end[is_client ? ST_SIDE_SERVER : ST_SIDE_CLIENT] = {
      .cookie = state.peer.cookie,
      .netns_cookie = state.peer_netns_cookie,
      .sock = state.peer.sock};
  return candidate;
}

// The link of an application's socket: its peer is one leg, beside which stands the other.
Link link_of(const st_fast& state) {
  const bool is_client = state.side == ST_SIDE_CLIENT;
  return {.client_leg = is_client ? state.peer.cookie : state.leg.cookie,
          .server_leg = is_client ? state.leg.cookie : state.peer.cookie,
          .index = state.slot / 2};
}

// After a release: it waits for its reader, or could not be visited.
bool is_still_in(st_fast_reason answer) {
  return answer == ST_FAST_READER_BUSY || answer == ST_FAST_INTERNAL;
}

}  // namespace

Adoption::Adoption(Settings settings, Sockets& sockets, Pods& pods, Workloads& workloads)
    : sockets_(sockets), admission_(settings, pods, workloads) {}

void Adoption::set_settings(const Settings& settings, Clock::time_point now) {
  admission_.set_settings(settings);
  on_policy_changed(now);
}

void Adoption::scan(const std::vector<Candidate>& candidates, Clock::time_point now) {
  std::set<std::uint64_t> open;
  for (const Candidate& candidate : candidates) {
    open.insert(candidate.end[ST_SIDE_CLIENT].cookie);
    add(candidate, now);
  }
  std::vector<std::uint64_t> gone;
  for (const auto& [cookie, pair] : pairs_.all()) {
    if (!open.contains(cookie)) {
      gone.push_back(cookie);
    }
  }
  std::for_each(gone.begin(), gone.end(), [this](std::uint64_t cookie) { pairs_.erase(cookie); });
  // What is kept of a pod ends with it.
  admission_.begin_pass();
  admission_.prune();
  std::erase_if(last_refusal_,
                [this](const auto& entry) { return !admission_.is_pod(entry.first); });
}

void Adoption::add(const Candidate& candidate, Clock::time_point now) {
  if (pairs_.all().size() >= ST_MAX_PAIRS ||
      pairs_.find(candidate.end[ST_SIDE_CLIENT].cookie) != nullptr) {
    return;
  }
  Pair& pair = pairs_.put(candidate);
  pairs_.set_due(pair, now);
  admission_.saw_traffic(pair, now);
}

// Until the connection closes: a scan would find it again.
void Adoption::refuse(Pair& pair, st_fast_reason reason) {
  pairs_.move_to(pair, Stage::kRefused, kNever);
  pair.reason = reason;
  if (reason == ST_FAST_GONE) {
    return;
  }
  ++refused_[reason];
  for (const std::uint64_t pod : pods_of(pair)) {
    last_refusal_[pod] = reason;
  }
}

void Adoption::start_leaving(Pair& pair, st_fast_reason reason, Clock::time_point now) {
  if (pair.stage != Stage::kAdopted) {
    return;
  }
  pairs_.move_to(pair, Stage::kLeave, now);
  pair.reason = reason;
  // The relay's other application sends past the engine to this one: both leave.
  if (Pair* other = relays_.part(pair, now); other != nullptr) {
    start_leaving(*other, reason, now);
  }
}

std::vector<Adoption::Answers> Adoption::ask(const std::vector<Pair*>& pairs, st_adopt_op op) {
  std::vector<st_adopt_request> requests;
  requests.reserve(2 * pairs.size());
  for (const Pair* pair : pairs) {
    for (const st_pair_side side : {ST_SIDE_CLIENT, ST_SIDE_SERVER}) {
      requests.push_back(request_for(*pair, side, op));
      // Whom the sentinel saw must be out soon.
      requests.back().patient = may_be_lifted(pair->reason) ? 1 : 0;
    }
  }
  const std::vector<st_fast_reason> replies = sockets_.run(requests);
  std::vector<Answers> answers(pairs.size());
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    answers[i] = {.client = replies[2 * i], .server = replies[2 * i + 1]};
  }
  return answers;
}

void Adoption::look(const std::vector<Pair*>& pairs, Clock::time_point now) {
  const std::vector<Answers> answers = ask(pairs, ST_ADOPT_LOOK);
  std::vector<Pair*> suitable;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    Pair& pair = *pairs[i];
    const st_fast_reason reason =
        answers[i].client != ST_FAST_NONE ? answers[i].client : answers[i].server;
    if (reason == ST_FAST_NONE) {
      pairs_.move_to(pair, Stage::kWait, now);
      suitable.push_back(&pair);
    } else if (passes(reason) && (reason == ST_FAST_YOUNG || pair.attempts < kLooks)) {
      pair.reason = reason;
      pairs_.set_due(
          pair, now + std::min<Clock::duration>(kLookAgain * (1U << std::min(pair.attempts, 10U)),
                                                kLookSlowest));
      ++pair.attempts;
    } else {
      refuse(pair, reason);
    }
  }
  wait(suitable, now);
}

void Adoption::wait(const std::vector<Pair*>& pairs, Clock::time_point now) {
  std::vector<Pair*> ready;
  std::vector<Pair*> waiting;
  for (Pair* pair : pairs) {
    Clock::time_point until = now;
    pair->reason = admission_.against(*pair, now, &until);
    if (pair->reason == ST_FAST_NONE) {
      ready.push_back(pair);
    } else if (pair->reason == ST_FAST_PROBATION) {
      pairs_.set_due(*pair, until);
    } else {
      pairs_.set_due(*pair, now + kStillOpen);
      waiting.push_back(pair);
    }
  }
  if (!waiting.empty()) {
    const std::vector<Answers> answers = ask(waiting, ST_ADOPT_LOOK);
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      if (answers[i].client == ST_FAST_GONE || answers[i].server == ST_FAST_GONE) {
        refuse(*waiting[i], ST_FAST_GONE);
      }
    }
  }
  if (!ready.empty()) {
    insert(ready, now);
  }
}

void Adoption::insert(const std::vector<Pair*>& pairs, Clock::time_point now) {
  const std::vector<Answers> answers = ask(pairs, ST_ADOPT_INSERT);
  std::vector<Pair*> in;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    Pair& pair = *pairs[i];
    const st_fast_reason reason =
        answers[i].client != ST_FAST_NONE ? answers[i].client : answers[i].server;
    const unsigned attempts = pair.attempts;
    pairs_.move_to(pair, Stage::kAdopted, kNever);
    pair.noted = ST_FAST_NONE;  // an end that went in may have written, and so do its messages
    if (reason == ST_FAST_NONE) {
      pair.reason = ST_FAST_NONE;
      in.push_back(&pair);
      widening_.add(pair.nominated.end[ST_SIDE_CLIENT].netns_cookie);
      widening_.add(pair.nominated.end[ST_SIDE_SERVER].netns_cookie);
      continue;
    }
    // One end may be in: it is taken out, and nothing was sent fast meanwhile.
    start_leaving(pair, reason, now);
    pair.attempts = attempts;
  }
  if (!in.empty()) {
    (void)ask(in, ST_ADOPT_ARM);  // one that is closed need not be armed
    relays_.look_again();
  }
}

void Adoption::leave(const std::vector<Pair*>& pairs, Clock::time_point now) {
  std::vector<Pair*> armed;
  std::copy_if(pairs.begin(), pairs.end(), std::back_inserter(armed),
               [](const Pair* pair) { return !pair->disarmed; });
  // All senders first: st_adopt relies on it.
  if (!armed.empty()) {
    (void)ask(armed, ST_ADOPT_DISARM);
  }
  const std::vector<Answers> answers = ask(pairs, ST_ADOPT_RELEASE);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    Pair& pair = *pairs[i];
    pair.disarmed = true;
    if (is_still_in(answers[i].client) || is_still_in(answers[i].server)) {
      ++pair.attempts;
      pairs_.set_due(pair,
                     now + std::min<Clock::duration>(kLeaveAgain * pair.attempts, kLeaveSlowest));
      continue;
    }
    pair.noted = ST_FAST_NONE;  // its messages have written until now
    if (may_be_lifted(pair.reason)) {
      pairs_.move_to(pair, Stage::kWait, now);
    } else if (passes(pair.reason)) {
      pairs_.move_to(pair, Stage::kLook, now + kLookSlowest);
    } else {
      refuse(pair, pair.reason);
    }
  }
}

void Adoption::tick(Clock::time_point now) {
  admission_.begin_pass();
  std::map<Stage, std::vector<Pair*>> due = pairs_.take_due(now);
  if (!due[Stage::kLeave].empty()) {
    leave(due[Stage::kLeave], now);
  }
  if (!due[Stage::kLook].empty()) {
    look(due[Stage::kLook], now);
  }
  if (!due[Stage::kWait].empty()) {
    wait(due[Stage::kWait], now);
  }
  for (const auto& [stage, pairs] : due) {
    notes_.tell(pairs);
  }
  for (const st_fast_reason reason : relays_.connect(now)) {
    ++refused_[reason];
  }
  owed_.look(now);
  widening_.tick(now);
}

void Adoption::on_link(const Link& link, Clock::time_point now) {
  relays_.add(link, now + admission_.settings().probation + kLinkPatience);
}

void Adoption::on_demoted(std::uint64_t netns_cookie, st_fast_reason reason,
                          Clock::time_point now) {
  admission_.begin_pass();
  admission_.demote(netns_cookie, reason);
  last_refusal_[netns_cookie] = reason;
  for (auto& [cookie, pair] : pairs_.all()) {
    const auto pods = pods_of(pair);
    if (std::find(pods.begin(), pods.end(), netns_cookie) != pods.end()) {
      start_leaving(pair, reason, now);
    }
  }
}

void Adoption::on_marked(std::uint64_t cookie, Clock::time_point now) {
  if (Pair* pair = pairs_.find(cookie); pair != nullptr) {
    start_leaving(*pair, ST_FAST_MARKED, now);
  }
}

void Adoption::on_conflict(std::uint64_t netns_cookie, std::uint64_t cookie) {
  Pair* pair = pairs_.find(cookie);
  if (pair != nullptr && !is_in(*pair)) {
    return;  // ended already, or out before anything went wrong
  }
  const bool destroyed = sockets_.destroy(netns_cookie, cookie);
  log_event(LogLevel::kError, "adopt", "conflict",
            {{"netns_cookie", netns_cookie},
             {"socket_cookie", cookie},
             {"destroyed", destroyed},
             {"detail", "splice met bytes that had skipped TCP"}});
  if (pair == nullptr) {
    ++refused_[ST_FAST_CONFLICT];
  } else if (destroyed) {
    refuse(*pair, ST_FAST_CONFLICT);
  }
}

void Adoption::on_marks(const std::vector<std::pair<std::uint64_t, st_mark>>& marks,
                        Clock::time_point now) {
  for (const auto& [cookie, mark] : marks) {
    const Pair* pair = pairs_.find(cookie);
    if (pair == nullptr) {
      continue;  // not adopted, or closed long ago
    }
    if (mark.reason == ST_FAST_CONFLICT) {
      const bool is_client = client_cookie(*pair) == cookie;
      const st_pair_end& end = pair->nominated.end[is_client ? ST_SIDE_CLIENT : ST_SIDE_SERVER];
      on_conflict(end.netns_cookie, cookie);
    } else {
      on_marked(cookie, now);
    }
  }
}

void Adoption::on_policy_changed(Clock::time_point now) {
  admission_.begin_pass();
  for (auto& [cookie, pair] : pairs_.all()) {
    Clock::time_point until = now;
    if (pair.stage == Stage::kWait) {
      pairs_.set_due(pair, now);
    } else if (pair.stage == Stage::kAdopted) {
      const st_fast_reason reason = admission_.against(pair, now, &until);
      if (reason != ST_FAST_NONE && reason != ST_FAST_PROBATION) {
        start_leaving(pair, reason, now);
      }
    }
  }
}

void Adoption::restore(const std::vector<st_fast_live>& adopted, Clock::time_point now) {
  for (const st_fast_live& row : adopted) {
    const st_fast& state = row.state;
    const Candidate candidate = candidate_of(row);
    const bool second = pairs_.find(candidate.end[ST_SIDE_CLIENT].cookie) != nullptr;
    Pair& pair = pairs_.put(candidate);
    pair.noted = ST_FAST_NONE;
    on_owed(state.cookie, now);  // nobody has looked after it meanwhile
    widening_.add(state.netns_cookie);
    if (state.linked != 0) {
      pair.link = link_of(state);
    }
    // With one end only, the earlier agent was interrupted: inserting again completes it.
    if (state.released != 0 || pair.stage == Stage::kLeave) {
      pairs_.move_to(pair, Stage::kLeave, now);
      pair.reason = ST_FAST_NODE_OFF;
    } else {
      pairs_.move_to(pair, second ? Stage::kAdopted : Stage::kWait, second ? kNever : now);
    }
  }
  notes_.tell_adopted(pairs_.all());
}

}  // namespace sidetrack::adopt
