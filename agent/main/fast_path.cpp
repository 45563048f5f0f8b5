// SPDX-License-Identifier: Apache-2.0
#include "agent/main/fast_path.h"

#include <cerrno>
#include <utility>

#include "sidetrack/log/log.h"

namespace sidetrack::agent {

namespace {

constexpr std::chrono::milliseconds kScan{100};
constexpr std::chrono::seconds kFullScan{5};

}  // namespace

FastPath::FastPath(boost::asio::io_context& context, const Options& options, std::string cgroup_dir,
                   dataplane::Dataplane& dataplane, RealKernel& kernel, RealNetns& netns,
                   const reconcile::Reconciler& reconciler, const kube::ObjectSet& objects,
                   std::uint64_t node_netns_cookie)
    : options_(options),
      settings_(options.fast_path),
      cgroup_dir_(std::move(cgroup_dir)),
      dataplane_(dataplane),
      kernel_(kernel),
      netns_(netns),
      path_of_([&reconciler](std::uint64_t cookie) { return reconciler.netns_path(cookie); }),
      pods_(dataplane, netns, reconciler, objects),
      visitor_(dataplane.adopter(), node_netns_cookie, path_of_),
      adoption_({}, visitor_, pods_, workloads_),
      self_test_(context) {}

Result<void> FastPath::watch() {
  if (watching_) {
    return {};
  }
  const auto watching = dataplane_.set_sentinel(settings_.sentinel);
  ST_TRY(watching);
  watching_ = true;
  log_event(LogLevel::kInfo, "adopt", "watching",
            {{"sentinel", *watching == dataplane::Sentinel::kFentry ? "fentry" : "tracepoint"}});
  return {};
}

// What an earlier agent adopted is watched until it is out; then nobody pays for the sentinel.
void FastPath::stop_watching() {
  const auto has_adopted = dataplane_.has_adopted();
  if (!has_adopted || *has_adopted) {
    return;
  }
  if (auto off = dataplane_.hold_fins(false); !off) {
    log_event(LogLevel::kError, "adopt", "fin_hook_stays", {{"detail", off.error().message}});
    return;
  }
  holding_ = false;
  if (auto off = dataplane_.set_sentinel(dataplane::Sentinel::kOff); !off) {
    log_event(LogLevel::kError, "adopt", "sentinel_stays", {{"detail", off.error().message}});
    return;
  }
  watching_ = false;
}

void FastPath::give_up(const Error& problem, st_fast_reason reason) {
  const auto written = dataplane_.disable_fast_path();
  turn_off(written ? problem.message : written.error().message, reason);
}

// Where nothing is adopted no packet pays for it. A socket that has just been put in sends nothing
// past TCP for a second.
void FastPath::hold_fins() {
  if (holding_ || !adoption_.has_any_in()) {
    return;
  }
  const auto holding = dataplane_.hold_fins(true);
  holding_ = holding.has_value();
  if (!holding) {
    give_up(holding.error(), ST_FAST_INTERNAL);
  }
}

// Before a pair is looked at for the first time: from then on its pods are on probation.
void FastPath::follow_pods(adopt::Clock::time_point now) {
  const bool may_begin = on() || problem_ == kSelfTestRunning;
  const auto pods = may_begin ? pods_.taking_part() : std::set<std::uint64_t>();
  if (!pods.empty()) {
    const auto watching = watch();
    // The kernel lets a link go some milliseconds after its pin, and the same program is not
    // attached twice.
    watch_is_due_ = !watching && watching.error().error_number == EEXIST;
    if (!watching && !watch_is_due_) {
      give_up(watching.error(), ST_FAST_NO_SENTINEL);
    }
  } else {
    watch_is_due_ = false;
    if (watching_ && problem_ != kSelfTestRunning) {
      stop_watching();
    }
  }
  // What they do from here on is seen.
  const auto news = pods_.find_io_uring(watching_ ? pods : decltype(pods)(), now);
  for (const std::uint64_t cookie : news.with_ring) {
    on_demoted(cookie, ST_FAST_IO_URING);
  }
  if (news.any) {
    adoption_.on_policy_changed(adopt::Clock::now());  // they may be let in from now on
  }
}

void FastPath::on_demoted(std::uint64_t netns_cookie, st_fast_reason reason) {
  // The self-test provokes them in a namespace of its own, which is no pod's.
  const bool is_pod = path_of_(netns_cookie).has_value();
  log_event(is_pod ? LogLevel::kInfo : LogLevel::kDebug, "adopt", "demoted",
            {{"netns_cookie", netns_cookie}, {"reason", adopt::name_of(reason)}});
  adoption_.on_demoted(netns_cookie, reason, adopt::Clock::now());
}

void FastPath::on_event(const st_event& event) {
  const auto now = adopt::Clock::now();
  switch (event.kind) {
    case ST_EVENT_DEMOTED:
      on_demoted(event.netns_cookie, static_cast<st_fast_reason>(event.socket_cookie));
      break;
    case ST_EVENT_MARKED:
      adoption_.on_marked(event.socket_cookie, now);
      break;
    case ST_EVENT_OWED:
      adoption_.on_owed(event.socket_cookie, now);
      break;
    case ST_EVENT_CONFLICT:
      adoption_.on_conflict(event.netns_cookie, event.socket_cookie);
      break;
    default:
      break;
  }
}

void FastPath::on_link(const adopt::Link& link) {
  if (settings_.on) {
    adoption_.on_link(link, adopt::Clock::now());
  }
}

void FastPath::on_netns_leaves(UniqueFd netns) {
  if (holding_) {
    visitor_.let_fins_go(std::move(netns));
  }
}

void FastPath::tick() {
  const auto now = adopt::Clock::now();
  dataplane_.fast_beat();
  // Whoever changed a row, a switch or a mark has raised it, or could not tell us something.
  if (const std::uint64_t generation = dataplane_.fast_generation(); generation != generation_) {
    generation_ = generation;
    debts_are_due_ = true;
    follow_pods(now);
    find_marked(now);
    adoption_.on_policy_changed(now);
  } else if (watch_is_due_) {
    follow_pods(now);
  }
  if (dataplane_.fast_path_problem().empty() && !watch_is_due_) {
    scan(now);
  }
  adoption_.tick(now);
}

void FastPath::find_marked(adopt::Clock::time_point now) {
  if (!adoption_.has_any_in()) {
    return;  // whoever is put in is looked for there
  }
  const auto marks = dataplane_.marks();
  if (!marks) {
    log_event(LogLevel::kError, "adopt", "list_failed", {{"detail", marks.error().message}});
    return;
  }
  adoption_.on_marks(*marks, now);
}

void FastPath::find_owed(const std::vector<dataplane::PairRow>& rows,
                         adopt::Clock::time_point now) {
  for (const auto& [key, pair] : rows) {
    for (const st_pair_side sender : {ST_SIDE_CLIENT, ST_SIDE_SERVER}) {
      if (pair.owed[sender] != 0 || pair.held[sender] != 0) {
        adoption_.on_owed(
            pair.end[sender == ST_SIDE_CLIENT ? ST_SIDE_SERVER : ST_SIDE_CLIENT].cookie, now);
      }
    }
  }
}

void FastPath::scan(adopt::Clock::time_point now) {
  if (now < scan_at_) {
    return;
  }
  scan_at_ = now + kScan;
  hold_fins();
  const auto counters = dataplane_.fast_counters();
  const bool full = now >= full_scan_at_;
  if (!counters) {
    return;
  }
  if (counters->paired == paired_ && !full && !debts_are_due_) {
    return;
  }
  const auto rows = dataplane_.pairs();
  if (!rows) {
    log_event(LogLevel::kError, "adopt", "list_failed", {{"detail", rows.error().message}});
    return;
  }
  paired_ = counters->paired;
  std::vector<adopt::Candidate> candidates;
  for (const dataplane::PairRow& row : *rows) {
    if (row.pair.end[ST_SIDE_SERVER].cookie != 0) {
      candidates.push_back({.key = row.key,
                            .end = {row.pair.end[ST_SIDE_CLIENT], row.pair.end[ST_SIDE_SERVER]},
                            .kind = row.pair.kind});
    }
  }
  adoption_.scan(candidates, now);
  if (std::exchange(debts_are_due_, false)) {
    find_owed(*rows, now);
  }
  if (full) {
    full_scan_at_ = now + kFullScan;
    follow_pods(now);  // what was adopted may be out by now
    forget_remote(*rows);
    if (const auto done = dataplane_.drop_old_marks(); !done) {
      log_event(LogLevel::kError, "adopt", "drop_failed", {{"detail", done.error().message}});
    }
  }
}

void FastPath::forget_remote(const std::vector<dataplane::PairRow>& rows) {
  std::set<std::uint64_t> alone;
  for (const dataplane::PairRow& row : rows) {
    const st_pair_end& client = row.pair.end[ST_SIDE_CLIENT];
    if (row.pair.end[ST_SIDE_SERVER].cookie != 0) {
      continue;
    }
    if (!alone_.contains(client.cookie)) {
      alone.insert(client.cookie);
    } else if (auto done = dataplane_.adopter().run(
                   {.op = ST_ADOPT_FORGET, .key = row.key, .self = client});
               !done) {
      log_event(LogLevel::kError, "adopt", "run_failed", {{"detail", done.error().message}});
    } else if (*done == ST_FAST_NONE) {
      ++remote_;
    }
  }
  alone_ = std::move(alone);
}

// Without slots an engine declares no links, and nothing is handed off. What reads a slot in the
// kernel relies on loads that are seen in order, as amd64 has them.
int FastPath::slots_fd() const {
#if defined(__x86_64__)
  return dataplane_.fast_path_problem().empty() ? dataplane_.slots_fd() : -1;
#else
  return -1;
#endif
}

std::map<std::string, std::uint64_t> FastPath::refused() const {
  std::map<std::string, std::uint64_t> sums;
  for (const auto& [reason, count] : adoption_.refused()) {
    sums[std::string(adopt::name_of(reason))] += count;
  }
  if (remote_ != 0) {
    sums[std::string(adopt::name_of(ST_FAST_NO_PEER))] += remote_;
  }
  const auto counters = dataplane_.fast_counters();
  for (unsigned reason = 1; counters && reason < ST_FAST_COUNT; ++reason) {
    if (counters->refused[reason] != 0) {
      sums[std::string(adopt::name_of(static_cast<st_fast_reason>(reason)))] +=
          counters->refused[reason];
    }
  }
  return sums;
}

}  // namespace sidetrack::agent
