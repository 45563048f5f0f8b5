// SPDX-License-Identifier: Apache-2.0
#include "tests/soak/judge.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

namespace sidetrack::soak {

namespace {

using nlohmann::json;

constexpr std::int64_t kStallMs = 1000;  // as endpoints tell of
constexpr std::int64_t kWaitMs = 2000;   // until what happened at the same time has been told
constexpr std::int64_t kGraceMs = 300;   // between a process's end and its sockets'
constexpr std::int64_t kEdgeMs = 50;
constexpr std::int64_t kAwayMs = 200;  // ST_FAST_AWAY_NS, and a moment
constexpr std::int64_t kForgetMs = 60'000;
constexpr std::int64_t kTakeOutMs = 2000;  // from the first odd call to the sockets being out
constexpr std::int64_t kBeatMs = 1300;     // a dead engine is believed alive: ST_HEARTBEAT_STALE_NS

// What may be seen when something happened during the connection, and why. A connection that is
// only on its way to be accepted is reset like one that was.
struct Rule {
  Cause cause;
  bool only_by_engine;
  bool only_connecting;
  std::string_view error;
  std::string_view why;
};
constexpr std::array kRules{
    Rule{Cause::kClientKilled, false, false, "EOF", "peer killed"},
    Rule{Cause::kClientKilled, false, false, "ECONNRESET", "peer killed"},
    Rule{Cause::kClientKilled, false, false, "EPIPE", "peer killed"},
    Rule{Cause::kServerKilled, false, false, "EOF", "peer killed"},
    Rule{Cause::kServerKilled, false, false, "ECONNRESET", "peer killed"},
    Rule{Cause::kServerKilled, false, false, "EPIPE", "peer killed"},
    // shutdown() after the reset that follows an EOF
    Rule{Cause::kClientKilled, false, false, "ENOTCONN", "peer killed"},
    Rule{Cause::kServerKilled, false, false, "ENOTCONN", "peer killed"},
    Rule{Cause::kEngineKilled, true, false, "ENOTCONN", "engine killed"},
    Rule{Cause::kServerKilled, false, true, "ECONNREFUSED", "no server"},
    Rule{Cause::kEngineKilled, true, false, "ECONNRESET", "engine killed"},
    Rule{Cause::kEngineKilled, true, false, "EPIPE", "engine killed"},
    Rule{Cause::kEngineKilled, true, true, "ECONNREFUSED", "engine killed"},
};

// What the script itself brings about.
bool is_scripted(const std::string& kind, const std::string& error) {
  if (kind == "abort") {
    return error == "ECONNRESET" || error == "EPIPE";
  }
  return kind == "rude" && (error == "RUDE_EOF" || error == "ECONNRESET" || error == "EPIPE");
}

// What was seen in the middle of a gap.
std::string kind_of_gap(const json& told) {
  const json seen = json::parse(told.value("in_gap", ""), nullptr, false);
  if (!seen.is_object()) {
    return "not seen";
  }
  if (seen.at("unread") == true) {
    return "bytes wait";
  }
  if (told.at("retransmits") != seen.at("retransmits")) {
    return "sent again";
  }
  if (seen.at("not_sent") != 0) {
    return "window closed";
  }
  return seen.at("unacked") != 0 ? "not acknowledged" : "nothing to do";
}

bool is_mptcp(const json& told) {
  return told.value("mptcp", false);
}

}  // namespace

std::string Source::group(const json& told) const {
  if (is_control) {
    return "control";
  }
  return is_mptcp(told) ? "sockets of MPTCP" : world;
}

std::size_t Judge::open(const Incident& incident) {
  incidents_.push_back(incident);
  return incidents_.size() - 1;
}

void Judge::close(std::size_t incident, std::int64_t to_ms) {
  incidents_.at(incident).to_ms = to_ms;
}

void Judge::take(const Source& source, const json& line, std::int64_t now_ms) {
  const auto& what = line.at("what").get_ref<const std::string&>();
  const bool of_tcp = source.is_control && !is_mptcp(line);
  if (what == "starved" || (of_tcp && (what == "gap" || what == "stall"))) {
    control_gaps_.push_back({.from_ms = line.at("from").get<std::int64_t>(),
                             .to_ms = line.at("now").get<std::int64_t>()});
  }
  if (what == "end" && line.at("error") == "STALLED" && is_mptcp(line)) {
    const auto id = line.at("id").get<std::uint64_t>();
    if (id != 0) {  // it knew which connection it was
      given_up_.insert(id);
    }
  }
  if (what == "gap" || what == "stall" || what == "end") {
    standstills_.take(line);
  }
  waiting_.push_back({.source = source, .told = line, .due_ms = now_ms + kWaitMs});
}

void Judge::look(std::int64_t now_ms) {
  std::vector<Line> due;
  const auto later = std::stable_partition(waiting_.begin(), waiting_.end(),
                                           [&](const Line& line) { return line.due_ms > now_ms; });
  std::move(later, waiting_.end(), std::back_inserter(due));
  waiting_.erase(later, waiting_.end());
  std::for_each(due.begin(), due.end(), [&](const Line& line) { look_at(line, now_ms); });
  // The other end was killed and will never tell.
  std::erase_if(half_, [&](const auto& entry) { return entry.second.at_ms + kForgetMs < now_ms; });
  standstills_.forget(now_ms - 2 * kForgetMs);
}

void Judge::look_at(const Line& line, std::int64_t now_ms) {
  const auto& what = line.told.at("what").get_ref<const std::string&>();
  if (what == "gap") {
    ++(line.source.is_control ? totals_.control_gaps : totals_.gaps);
    ++totals_.gap_kinds[line.source.group(line.told) + ": " + kind_of_gap(line.told)];
  } else if (what == "end") {
    look_at_end(line);
  } else if (what == "stall") {
    look_at_stall(line, now_ms);
  } else if (what == "small" || what == "large") {
    look_at_answer(line);
  } else if (what == "corrupt") {
    add_finding("corrupt bytes: " + line.source.world + " " + line.told.dump());
  }
}

// Of FIONREAD: see Endpoint.
void Judge::look_at_answer(const Line& line) {
  if (line.told.at("what") == "small" &&
      line.told.at("since_first").get<std::int64_t>() <= kTakeOutMs) {
    ++totals_.small_answers;
    return;
  }
  add_finding("FIONREAD: " + line.source.world + " " + line.told.dump());
}

void Judge::look_at_end(const Line& line) {
  const json& told = line.told;
  if (!is_mptcp(told)) {
    std::int64_t& longest =
        line.source.is_control ? totals_.control_gap_ms : totals_.longest_gap_ms;
    longest = std::max(longest, told.at("longest_gap").get<std::int64_t>());
  }
  if (told.at("side") == "client") {
    ++totals_.connections[line.source.world + " " + told.at("kind").get<std::string>()];
  }
  const auto& error = told.at("error").get_ref<const std::string&>();
  if (error.empty()) {
    count_bytes(line);
    compare_ends(line);
    return;
  }
  if (given_up_.contains(told.at("id").get<std::uint64_t>())) {
    ++totals_.errors[error + ", MPTCP stood still"];
    return;
  }
  const auto why = excuse(line);
  ++totals_.errors[error + ", " + why.value_or("FOREIGN")];
  if (!why) {
    add_finding("foreign end: " + line.source.world + " " + told.dump());
  }
}

// Of a connection that was reset nobody knows what of its last bytes TCP had sent.
void Judge::count_bytes(const Line& line) {
  const std::string group = line.source.group(line.told);
  const auto sent = line.told.at("sent").get<std::uint64_t>();
  totals_.bytes[group] += sent;
  totals_.retransmits[group] += line.told.at("retransmits").get<std::uint64_t>();
  totals_.fast_bytes[group] += sent - std::min(sent, line.told.at("tcp_sent").get<std::uint64_t>());
}

std::optional<std::string> Judge::excuse(const Line& line) const {
  const auto& error = line.told.at("error").get_ref<const std::string&>();
  if (error == "CORRUPT") {
    return "told already";
  }
  if (is_scripted(line.told.at("kind").get<std::string>(), error)) {
    return "scripted";
  }
  for (const Rule& rule : kRules) {
    const bool applies =
        rule.error == error &&
        (!rule.only_by_engine || (line.source.by_engine && !line.source.is_control)) &&
        (!rule.only_connecting || line.told.at("connecting").get<bool>());
    if (applies && happened(rule.cause, line)) {
      return std::string(rule.why);
    }
  }
  return std::nullopt;
}

// The peer's end counts, not one's own: a killed process says nothing any more.
bool Judge::happened(Cause cause, const Line& line) const {
  const auto begin = line.told.at("begin").get<std::int64_t>();
  const auto end = line.told.at("now").get<std::int64_t>();
  const bool is_client = line.told.at("side") == "client";
  if ((cause == Cause::kClientKilled && is_client) ||
      (cause == Cause::kServerKilled && !is_client)) {
    return false;
  }
  return std::any_of(incidents_.begin(), incidents_.end(), [&](const Incident& incident) {
    const std::int64_t after = cause == Cause::kEngineKilled ? kBeatMs : kGraceMs;
    const bool never_ends = incident.to_ms == std::numeric_limits<std::int64_t>::max();
    return incident.cause == cause &&
           (cause == Cause::kEngineKilled || incident.world == line.source.world) &&
           incident.from_ms <= end && (never_ends || begin <= incident.to_ms + after);
  });
}

// The one stall that docs/fast-path.md owns up to: a reader that watches edges had bytes in both
// queues when the agent died. It ends when the agent is back: see Endpoint's kGiveUpMs.
bool Judge::agent_just_died(std::int64_t at_ms) const {
  return std::any_of(incidents_.begin(), incidents_.end(), [&](const Incident& incident) {
    return incident.cause == Cause::kAgentKilled && incident.from_ms <= at_ms + kEdgeMs &&
           at_ms <= incident.from_ms + kAwayMs;
  });
}

void Judge::look_at_stall(const Line& line, std::int64_t now_ms) {
  const auto why = excuse_of_stall(line);
  if (why) {
    ++totals_.errors["stall, " + std::string(*why)];
    return;
  }
  const auto other = standstills_.other_end(line.told, kStallMs);
  const bool unknown = other == Standstills::Other::kUnknown;
  if (other == Standstills::Other::kMoved || (unknown && other_end_was_killed(line))) {
    ++totals_.errors["stall, the other end moved"];
    return;
  }
  const auto told_ms = line.told.at("now").get<std::int64_t>();
  if (unknown && now_ms < told_ms + kForgetMs) {
    waiting_.push_back({.source = line.source, .told = line.told, .due_ms = now_ms + kWaitMs});
    return;
  }
  add_finding("stall: " + line.source.world + " " + line.told.dump());
}

std::optional<std::string_view> Judge::excuse_of_stall(const Line& line) const {
  // Sockets of MPTCP are never adopted: what they show is the kernel's own. Those that Sidetrack
  // does not look at (the control ones) are seen to stand still with a closed window, too (6.18).
  if (is_mptcp(line.told)) {
    return "MPTCP";
  }
  const auto from = line.told.at("from").get<std::int64_t>();
  const auto to = line.told.at("now").get<std::int64_t>();
  // Plain TCP stood still, or programs got no CPU, for at least half of the time: a busy machine.
  const std::int64_t busy =
      std::accumulate(control_gaps_.begin(), control_gaps_.end(), std::int64_t{0},
                      [&](std::int64_t sum, const Gap& gap) {
                        const auto both = std::min(gap.to_ms, to) - std::max(gap.from_ms, from);
                        return sum + std::max<std::int64_t>(0, both);
                      });
  if (line.source.is_control || 2 * busy >= to - from) {
    return "plain TCP or the machine too";
  }
  if (agent_just_died(from)) {
    return "the agent was away";
  }
  return std::nullopt;
}

// A killed end tells nothing of its last second: it had not stood still for one until then. That
// it was there at all is shown by what it had sent.
bool Judge::other_end_was_killed(const Line& line) const {
  const Cause cause =
      line.told.at("side") == "client" ? Cause::kServerKilled : Cause::kClientKilled;
  return line.told.at("received") != 0 &&
         std::any_of(incidents_.begin(), incidents_.end(), [&](const Incident& incident) {
           return incident.cause == cause && incident.world == line.source.world &&
                  incident.from_ms >= line.told.at("now").get<std::int64_t>();
         });
}

void Judge::compare_ends(const Line& line) {
  const auto id = line.told.at("id").get<std::uint64_t>();
  const Counted here{.sent = line.told.at("sent").get<std::uint64_t>(),
                     .received = line.told.at("received").get<std::uint64_t>(),
                     .at_ms = line.told.at("now").get<std::int64_t>()};
  const auto& kind = line.told.at("kind").get_ref<const std::string&>();
  // Who ends such a connection in the middle does not know what arrives.
  if (kind == "abort" || kind == "rude") {
    return;
  }
  const auto there = half_.find(id);
  if (there == half_.end()) {
    half_.emplace(id, here);
    return;
  }
  const bool same = there->second.sent == here.received && there->second.received == here.sent;
  if (!same) {
    add_finding("lost bytes: " + line.source.world + " " + line.told.dump() + " other end sent " +
                std::to_string(there->second.sent) + " received " +
                std::to_string(there->second.received));
  } else {
    ++totals_.matched;
  }
  half_.erase(there);
}

}  // namespace sidetrack::soak
