// SPDX-License-Identifier: Apache-2.0
// What the ends of the soak's connections may show, and what is a finding: the table of errnos that
// plain TCP, or a proxy that dies, shows at that moment; stalls that TCP would not show; bytes that
// one end sent and the other never got. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/soak/standstills.h"

namespace sidetrack::soak {

enum class Cause { kClientKilled, kServerKilled, kEngineKilled, kAgentKilled };

// When something was gone: from the kill until its successor was ready. kSplices: an application
// has begun to splice, until its sockets are off the fast path. CLOCK_MONOTONIC.
struct Incident {
  Cause cause = Cause::kClientKilled;
  std::string world{};  // of agent and engine: all
  std::int64_t from_ms = 0;
  std::int64_t to_ms = std::numeric_limits<std::int64_t>::max();
};

// Who says something.
struct Source {
  std::string world;
  bool by_engine = false;   // its connections may go through an engine
  bool is_control = false;  // this one is plain TCP, whatever happens

  // Under which name a line of it is counted.
  [[nodiscard]] std::string group(const nlohmann::json& told) const;
};

class Judge {
 public:
  // Gives the incident's index, for close().
  std::size_t open(const Incident& incident);
  void close(std::size_t incident, std::int64_t to_ms);

  // One line of a peer. To be looked at later, when all that happened then is known.
  void take(const Source& source, const nlohmann::json& line, std::int64_t now_ms);
  // Looks at what has waited long enough; ~0 for all.
  void look(std::int64_t now_ms);

  [[nodiscard]] const std::vector<std::string>& findings() const { return findings_; }
  void add_finding(std::string finding) { findings_.push_back(std::move(finding)); }

  // Counts, for the summary.
  struct Totals {
    std::map<std::string, std::uint64_t> connections{};  // by "world kind"
    std::map<std::string, std::uint64_t> errors{};       // by "error, excuse"
    // Of connections that ended as planned, by world ("control").
    std::map<std::string, std::uint64_t> bytes{};
    std::map<std::string, std::uint64_t> fast_bytes{};   // of these, past TCP
    std::map<std::string, std::uint64_t> retransmits{};  // segments of TCP
    std::uint64_t matched = 0;                           // connections whose two ends agree
    std::map<std::string, std::uint64_t> gap_kinds{};    // by "world: what was seen"
    std::uint64_t small_answers = 0;                     // of the first FIONREADs
    std::uint64_t gaps = 0;                              // pauses that were longer than scripted
    std::uint64_t control_gaps = 0;
    std::int64_t control_gap_ms = 0;
    std::int64_t longest_gap_ms = 0;
  };
  [[nodiscard]] const Totals& totals() const { return totals_; }

 private:
  struct Line {
    Source source;
    nlohmann::json told;
    std::int64_t due_ms = 0;
  };
  struct Gap {
    std::int64_t from_ms = 0;
    std::int64_t to_ms = 0;
  };
  struct Counted {
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    std::int64_t at_ms = 0;
  };

  void look_at(const Line& line, std::int64_t now_ms);
  void look_at_end(const Line& line);
  // Waits on where the other end may still tell what it did.
  void look_at_stall(const Line& line, std::int64_t now_ms);
  // Why it is none of Sidetrack's, whatever the other end did.
  [[nodiscard]] std::optional<std::string_view> excuse_of_stall(const Line& line) const;
  [[nodiscard]] bool other_end_was_killed(const Line& line) const;
  void look_at_answer(const Line& line);
  void count_bytes(const Line& line);
  void compare_ends(const Line& line);
  // Why the error is no finding; nullopt: it is one.
  [[nodiscard]] std::optional<std::string> excuse(const Line& line) const;
  [[nodiscard]] bool agent_just_died(std::int64_t at_ms) const;
  [[nodiscard]] bool happened(Cause cause, const Line& line) const;

  std::vector<Incident> incidents_;
  std::vector<Line> waiting_;
  std::vector<Gap> control_gaps_;
  Standstills standstills_;
  std::map<std::uint64_t, Counted> half_;  // complete ends whose other end has not told yet
  std::set<std::uint64_t> given_up_;       // connections of MPTCP that stood still
  std::vector<std::string> findings_;
  Totals totals_;
};

}  // namespace sidetrack::soak
