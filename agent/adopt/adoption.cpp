// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/adoption.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "sidetrack/fast_rules.h"

namespace sidetrack::adopt {

namespace {

constexpr unsigned kLooks = 8;  // at a pair that may become suitable
constexpr std::chrono::milliseconds kLookAgain{50};
constexpr std::chrono::milliseconds kLookSlowest{2000};  // at one that may take its time
constexpr std::chrono::milliseconds kLeaveAgain{20};
constexpr std::chrono::milliseconds kOwedLook{10};
constexpr std::chrono::milliseconds kLeaveSlowest{1000};
constexpr std::chrono::seconds kStillOpen{30};  // how often a waiting pair is looked at
constexpr std::chrono::seconds kLinkPatience{60};
constexpr Clock::time_point kNever = Clock::time_point::max();

bool is_policy(st_fast_reason reason) {
  return reason == ST_FAST_NODE_OFF || reason == ST_FAST_POD_OFF ||
         reason == ST_FAST_OTHER_NAMESPACE;
}

// The pods whose word counts: engines have none.
std::vector<std::uint64_t> pods_of(const Pair& pair) {
  const Candidate& nominated = pair.nominated;
  switch (nominated.kind) {
    case ST_PAIR_TO_ENGINE:
      return {nominated.end[ST_SIDE_CLIENT].netns_cookie};
    case ST_PAIR_FROM_ENGINE:
      return {nominated.end[ST_SIDE_SERVER].netns_cookie};
    default:
      return {nominated.end[ST_SIDE_CLIENT].netns_cookie,
              nominated.end[ST_SIDE_SERVER].netns_cookie};
  }
}

// After a release: it waits for its reader, or could not be visited.
bool is_still_in(st_fast_reason answer) {
  return answer == ST_FAST_READER_BUSY || answer == ST_FAST_INTERNAL;
}

std::uint64_t client_cookie(const Pair& pair) {
  return pair.nominated.end[ST_SIDE_CLIENT].cookie;
}

std::uint64_t server_cookie(const Pair& pair) {
  return pair.nominated.end[ST_SIDE_SERVER].cookie;
}

}  // namespace

Adoption::Adoption(Settings settings, Sockets& sockets, Pods& pods, Workloads& workloads)
    : settings_(settings), sockets_(sockets), pods_(pods), workloads_(workloads) {}

void Adoption::set_settings(const Settings& settings, Clock::time_point now) {
  settings_ = settings;
  on_policy_changed(now);
}

Pair* Adoption::find(std::uint64_t cookie) {
  const auto client = client_of_.find(cookie);
  if (client == client_of_.end()) {
    return nullptr;
  }
  const auto pair = pairs_.find(client->second);
  return pair == pairs_.end() ? nullptr : &pair->second;
}

void Adoption::scan(const std::vector<Candidate>& candidates, Clock::time_point now) {
  std::set<std::uint64_t> open;
  for (const Candidate& candidate : candidates) {
    open.insert(candidate.end[ST_SIDE_CLIENT].cookie);
    add(candidate, now);
  }
  std::vector<std::uint64_t> gone;
  for (const auto& [cookie, pair] : pairs_) {
    if (!open.contains(cookie)) {
      gone.push_back(cookie);
    }
  }
  std::for_each(gone.begin(), gone.end(), [this](std::uint64_t cookie) { forget(cookie); });
  // What is kept of a pod ends with it.
  asked_.clear();
  std::erase_if(first_seen_, [this](const auto& entry) { return !pod(entry.first); });
  std::erase_if(last_refusal_, [this](const auto& entry) { return !pod(entry.first); });
}

void Adoption::add(const Candidate& candidate, Clock::time_point now) {
  const std::uint64_t client = candidate.end[ST_SIDE_CLIENT].cookie;
  if (pairs_.size() >= ST_MAX_PAIRS || client_of_.contains(client)) {
    return;
  }
  Pair& pair = pairs_[client];
  pair.nominated = candidate;
  set_due(pair, now);
  client_of_[client] = client;
  client_of_[candidate.end[ST_SIDE_SERVER].cookie] = client;
  for (const std::uint64_t pod : pods_of(pair)) {
    first_seen_.try_emplace(pod, now);
  }
}

void Adoption::forget(std::uint64_t client) {
  const auto found = pairs_.find(client);
  if (found == pairs_.end()) {
    return;
  }
  client_of_.erase(server_cookie(found->second));
  client_of_.erase(client);
  pairs_.erase(found);
}

void Adoption::set_due(Pair& pair, Clock::time_point due) {
  pair.due = due;
  next_due_ = std::min(next_due_, due);
}

void Adoption::move_to(Pair& pair, Stage stage, Clock::time_point due) {
  pair.stage = stage;
  set_due(pair, due);
  pair.attempts = 0;
  pair.disarmed = false;
}

// Until the connection closes: a scan would find it again.
void Adoption::refuse(Pair& pair, st_fast_reason reason) {
  move_to(pair, Stage::kRefused, kNever);
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
  move_to(pair, Stage::kLeave, now);
  pair.reason = reason;
  if (!pair.linked_with) {
    return;
  }
  // The relay's other application sends past the engine to this one: both leave.
  Pair* other = find(*pair.linked_with);
  pair.linked_with.reset();
  if (other != nullptr) {
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
      requests.back().patient = is_policy(pair->reason) ? 1 : 0;
    }
  }
  const std::vector<st_fast_reason> replies = sockets_.run(requests);
  std::vector<Answers> answers(pairs.size());
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    answers[i] = {.client = replies[2 * i], .server = replies[2 * i + 1]};
  }
  return answers;
}

st_fast_reason Adoption::policy_of_pod(const Pod& pod, std::uint64_t netns_cookie,
                                       Clock::time_point now, Clock::time_point* until) const {
  if (st_pod_takes_part(&pod.row) == 0) {
    return ST_FAST_POD_OFF;
  }
  if (pod.demoted != ST_FAST_NONE) {
    return pod.demoted;
  }
  if (workloads_.demoted(pod.workload) != ST_FAST_NONE) {
    return ST_FAST_WORKLOAD;
  }
  const auto seen = first_seen_.find(netns_cookie);
  if (seen != first_seen_.end() && now < seen->second + settings_.probation) {
    *until = std::max(*until, seen->second + settings_.probation);
    return ST_FAST_PROBATION;
  }
  return ST_FAST_NONE;
}

// One answer of the kernel per pod and pass.
const std::optional<Pod>& Adoption::pod(std::uint64_t netns_cookie) {
  const auto [entry, is_new] = asked_.try_emplace(netns_cookie);
  if (is_new) {
    entry->second = pods_.pod(netns_cookie);
  }
  return entry->second;
}

// `until`: when the probation of all its pods ends.
st_fast_reason Adoption::policy_on(const Pair& pair, Clock::time_point now,
                                   Clock::time_point* until) {
  if (!settings_.enabled) {
    return ST_FAST_NODE_OFF;
  }
  st_fast_reason probation = ST_FAST_NONE;
  std::vector<Pod> known;
  for (const std::uint64_t cookie : pods_of(pair)) {
    const auto& known_pod = pod(cookie);
    if (!known_pod) {
      return ST_FAST_POD_OFF;
    }
    const st_fast_reason reason = policy_of_pod(*known_pod, cookie, now, until);
    if (reason == ST_FAST_PROBATION) {
      probation = reason;
    } else if (reason != ST_FAST_NONE) {
      return reason;
    }
    known.push_back(*known_pod);
  }
  if (known.size() == 2) {
    if (const auto reason = st_pods_allow(&known[0].row, &known[1].row); reason != ST_FAST_NONE) {
      return reason;
    }
  }
  return probation;
}

void Adoption::look(const std::vector<Pair*>& pairs, Clock::time_point now) {
  const std::vector<Answers> answers = ask(pairs, ST_ADOPT_LOOK);
  std::vector<Pair*> suitable;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    Pair& pair = *pairs[i];
    const st_fast_reason reason =
        answers[i].client != ST_FAST_NONE ? answers[i].client : answers[i].server;
    if (reason == ST_FAST_NONE) {
      move_to(pair, Stage::kWait, now);
      suitable.push_back(&pair);
    } else if (passes(reason) && (reason == ST_FAST_YOUNG || pair.attempts < kLooks)) {
      pair.reason = reason;
      set_due(pair, now + std::min<Clock::duration>(
                              kLookAgain * (1U << std::min(pair.attempts, 10U)), kLookSlowest));
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
    pair->reason = policy_on(*pair, now, &until);
    if (pair->reason == ST_FAST_NONE) {
      ready.push_back(pair);
    } else if (pair->reason == ST_FAST_PROBATION) {
      set_due(*pair, until);
    } else {
      set_due(*pair, now + kStillOpen);
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
    move_to(pair, Stage::kAdopted, kNever);
    if (reason == ST_FAST_NONE) {
      pair.reason = ST_FAST_NONE;
      in.push_back(&pair);
      continue;
    }
    // One end may be in: it is taken out, and nothing was sent fast meanwhile.
    start_leaving(pair, reason, now);
    pair.attempts = attempts;
  }
  if (!in.empty()) {
    (void)ask(in, ST_ADOPT_ARM);  // an end that is gone is seen by prune()
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
      set_due(pair, now + std::min<Clock::duration>(kLeaveAgain * pair.attempts, kLeaveSlowest));
    } else if (is_policy(pair.reason)) {
      move_to(pair, Stage::kWait, now);  // it may be allowed again
    } else if (passes(pair.reason)) {
      move_to(pair, Stage::kLook, now + kLookSlowest);
    } else {
      refuse(pair, pair.reason);
    }
  }
}

std::map<Stage, std::vector<Pair*>> Adoption::take_due(Clock::time_point now) {
  std::map<Stage, std::vector<Pair*>> due;
  if (now < next_due_) {
    return due;
  }
  next_due_ = kNever;
  for (auto& [cookie, pair] : pairs_) {
    if (pair.due <= now) {
      due[pair.stage].push_back(&pair);
    }
    next_due_ = std::min(next_due_, pair.due);
  }
  return due;
}

void Adoption::tick(Clock::time_point now) {
  asked_.clear();
  std::map<Stage, std::vector<Pair*>> due = take_due(now);
  if (!due[Stage::kLeave].empty()) {
    leave(due[Stage::kLeave], now);
  }
  if (!due[Stage::kLook].empty()) {
    look(due[Stage::kLook], now);
  }
  if (!due[Stage::kWait].empty()) {
    wait(due[Stage::kWait], now);
  }
  connect_links(now);
  look_after_owed(now);
}

void Adoption::on_link(const Link& link, Clock::time_point now) {
  links_.push_back({.link = link, .until = now + settings_.probation + kLinkPatience});
}

void Adoption::connect_links(Clock::time_point now) {
  std::vector<PendingLink> still;
  for (const PendingLink& pending : std::exchange(links_, {})) {
    Pair* client = find(pending.link.client_leg);
    Pair* server = find(pending.link.server_leg);
    if (client == nullptr || server == nullptr) {
      if (now < pending.until) {
        still.push_back(pending);
      }
      continue;
    }
    if (client->stage != Stage::kAdopted || server->stage != Stage::kAdopted) {
      still.push_back(pending);  // as long as both live
      continue;
    }
    client->linked_with = client_cookie(*server);
    server->linked_with = client_cookie(*client);
    (void)sockets_.run({link_request(*client, *server, *client, pending.link.index),
                        link_request(*server, *client, *client, pending.link.index)});
  }
  links_.insert(links_.end(), still.begin(), still.end());
}

void Adoption::on_demoted(std::uint64_t netns_cookie, st_fast_reason reason,
                          Clock::time_point now) {
  if (const auto pod = pods_.pod(netns_cookie)) {
    workloads_.demote(pod->workload, reason);
  }
  last_refusal_[netns_cookie] = reason;
  for (auto& [cookie, pair] : pairs_) {
    const auto pods = pods_of(pair);
    if (std::find(pods.begin(), pods.end(), netns_cookie) != pods.end()) {
      start_leaving(pair, reason, now);
    }
  }
}

void Adoption::on_marked(std::uint64_t cookie, Clock::time_point now) {
  if (Pair* pair = find(cookie); pair != nullptr) {
    start_leaving(*pair, ST_FAST_MARKED, now);
  }
}

void Adoption::on_owed(std::uint64_t cookie, Clock::time_point now) {
  owed_.try_emplace(cookie, Owed{.due = now + kOwedLook});
}

// Two looks that find bytes of TCP only: the reader has had time to come by itself. Telling it for
// nothing does no harm.
void Adoption::look_after_owed(Clock::time_point now) {
  std::vector<std::uint64_t> cookies;
  std::vector<st_adopt_request> requests;
  for (auto& [cookie, owed] : owed_) {
    if (owed.due > now) {
      continue;
    }
    owed.due = now + kOwedLook;
    cookies.push_back(cookie);
    const Pair* pair = find(cookie);
    const bool is_client = pair != nullptr && client_cookie(*pair) == cookie;
    requests.push_back(
        pair == nullptr
            ? st_adopt_request{}
            : request_for(*pair, is_client ? ST_SIDE_CLIENT : ST_SIDE_SERVER, ST_ADOPT_DRAINED));
  }
  if (cookies.empty()) {
    return;
  }
  const std::vector<st_fast_reason> answers = sockets_.run(requests);
  for (std::size_t i = 0; i < cookies.size(); ++i) {
    Owed& owed = owed_.at(cookies[i]);
    if (answers[i] == ST_FAST_READER_BUSY) {
      owed.only_tcp_before = false;
    } else if (answers[i] == ST_FAST_UNREAD && !owed.only_tcp_before) {
      owed.only_tcp_before = true;
    } else {
      // Taken out meanwhile: what came by TCP may be there all the same.
      const bool was_taken_out = answers[i] == ST_FAST_GONE && requests[i].self.cookie != 0;
      if (answers[i] == ST_FAST_UNREAD || was_taken_out) {
        sockets_.nudge(requests[i].self.netns_cookie, cookies[i]);
      }
      owed_.erase(cookies[i]);
    }
  }
}

void Adoption::on_conflict(std::uint64_t netns_cookie, std::uint64_t cookie) {
  ++refused_[ST_FAST_CONFLICT];
  const bool destroyed = sockets_.destroy(netns_cookie, cookie);
  spdlog::error(
      "component=adopt event=conflict netns_cookie={} socket_cookie={} destroyed={} "
      "detail=\"splice met bytes that had skipped TCP\"",
      netns_cookie, cookie, destroyed);
}

void Adoption::on_policy_changed(Clock::time_point now) {
  asked_.clear();
  for (auto& [cookie, pair] : pairs_) {
    Clock::time_point until = now;
    if (pair.stage == Stage::kWait) {
      set_due(pair, now);
    } else if (pair.stage == Stage::kAdopted) {
      const st_fast_reason reason = policy_on(pair, now, &until);
      if (reason != ST_FAST_NONE && reason != ST_FAST_PROBATION) {
        start_leaving(pair, reason, now);
      }
    }
  }
}

void Adoption::restore(const std::vector<st_fast_live>& adopted, Clock::time_point now) {
  for (const st_fast_live& row : adopted) {
    const st_fast& state = row.state;
    const bool is_client = state.side == ST_SIDE_CLIENT;
    const std::uint64_t client = is_client ? state.cookie : state.peer.cookie;
    const bool second = pairs_.contains(client);
    Pair& pair = pairs_[client];
    pair.nominated.key = state.key;
    pair.nominated.kind = state.kind;
    pair.nominated.end[state.side & 1U] = {
        .cookie = state.cookie, .netns_cookie = state.netns_cookie, .sock = row.sock};
    pair.nominated.end[is_client ? ST_SIDE_SERVER : ST_SIDE_CLIENT] = {
        .cookie = state.peer.cookie,
        .netns_cookie = state.peer_netns_cookie,
        .sock = state.peer.sock};
    client_of_[state.cookie] = client;
    client_of_[state.peer.cookie] = client;
    on_owed(state.cookie, now);  // nobody has looked after it meanwhile
    if (state.linked != 0) {
      pair.linked_with = is_client ? state.leg.cookie : state.far.cookie;
    }
    // With one end only, the earlier agent was interrupted: inserting again completes it.
    if (state.released != 0 || pair.stage == Stage::kLeave) {
      move_to(pair, Stage::kLeave, now);
      pair.reason = ST_FAST_NODE_OFF;
    } else {
      move_to(pair, second ? Stage::kAdopted : Stage::kWait, second ? kNever : now);
    }
  }
}

std::map<std::uint64_t, PodSummary> Adoption::summaries() const {
  std::map<std::uint64_t, PodSummary> summaries;
  for (const auto& [netns_cookie, reason] : last_refusal_) {
    summaries[netns_cookie].reason = reason;
  }
  for (const auto& [cookie, pair] : pairs_) {
    for (const std::uint64_t pod : pods_of(pair)) {
      PodSummary& summary = summaries[pod];
      if (pair.stage == Stage::kAdopted) {
        ++summary.adopted;
      } else if (pair.stage != Stage::kRefused) {
        ++summary.waiting;
        summary.reason = pair.reason;
      }
    }
  }
  return summaries;
}

std::map<std::uint64_t, std::uint64_t> Adoption::adopted_by_client() const {
  std::map<std::uint64_t, std::uint64_t> counts;
  for (const auto& [cookie, pair] : pairs_) {
    counts[pair.nominated.end[ST_SIDE_CLIENT].netns_cookie] +=
        pair.stage == Stage::kAdopted ? 1 : 0;
  }
  return counts;
}

std::uint64_t Adoption::adopted() const {
  std::uint64_t sum = 0;
  for (const auto& [netns_cookie, count] : adopted_by_client()) {
    sum += count;
  }
  return sum;
}

}  // namespace sidetrack::adopt
