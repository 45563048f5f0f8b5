// SPDX-License-Identifier: Apache-2.0
// That the soak's judge finds what it is there for, and lets pass what TCP shows.
#include "tests/soak/judge.h"

#include <gtest/gtest.h>

namespace sidetrack::soak {
namespace {

using nlohmann::json;

constexpr std::int64_t kLater = 1'000'000;
const Source kPass{.world = "pass"};
const Source kMesh{.world = "mesh", .by_engine = true};
const Source kControl{.world = "mesh", .by_engine = true, .is_control = true};

json ended(const std::string& error, const std::string& side = "client") {
  return {{"what", "end"},   {"id", 7},        {"kind", "ping"},  {"side", side},
          {"begin", 1000},   {"now", 2000},    {"error", error},  {"connecting", false},
          {"sent", 100},     {"received", 50}, {"tcp_sent", 100}, {"retransmits", 0},
          {"longest_gap", 3}};
}

json stood_still(std::int64_t from, std::int64_t to, const std::string& side = "client") {
  return {{"what", "stall"}, {"id", 7},       {"side", side},    {"from", from},
          {"now", to},       {"received", 1}, {"gap", to - from}};
}

// Findings after `lines`, with what happened around them.
std::vector<std::string> judged(const std::vector<Incident>& incidents,
                                const std::vector<std::pair<Source, json>>& lines) {
  Judge judge;
  for (const Incident& incident : incidents) {
    judge.open(incident);
  }
  for (const auto& [source, line] : lines) {
    judge.take(source, line, 0);
  }
  judge.look(kLater);
  return judge.findings();
}

TEST(SoakJudge, an_error_without_a_cause_is_a_finding) {
  for (const char* error : {"ECONNRESET", "EOF", "EPIPE", "ECONNREFUSED", "EAGAIN", "ENOMEM"}) {
    EXPECT_EQ(judged({}, {{kPass, ended(error)}}).size(), 1U) << error;
  }
}

TEST(SoakJudge, a_killed_peer_may_reset_or_end_the_connection) {
  const Incident killed{.cause = Cause::kServerKilled, .world = "pass", .from_ms = 1900};
  EXPECT_TRUE(judged({killed}, {{kPass, ended("ECONNRESET")}, {kPass, ended("EOF")}}).empty());
  EXPECT_EQ(judged({killed}, {{kPass, ended("EAGAIN")}}).size(), 1U);
  EXPECT_EQ(judged({killed}, {{kPass, ended("ECONNRESET", "server")}}).size(), 1U);
  EXPECT_EQ(judged({killed}, {{kMesh, ended("ECONNRESET")}}).size(), 1U);
}

TEST(SoakJudge, what_was_over_before_and_what_came_after_excuse_nothing) {
  const Incident before{
      .cause = Cause::kServerKilled, .world = "pass", .from_ms = 100, .to_ms = 200};
  const Incident after{.cause = Cause::kServerKilled, .world = "pass", .from_ms = 2500};
  EXPECT_EQ(judged({before, after}, {{kPass, ended("ECONNRESET")}}).size(), 1U);
}

TEST(SoakJudge, a_killed_engine_excuses_only_what_it_may_have_carried) {
  const Incident killed{.cause = Cause::kEngineKilled, .from_ms = 1500, .to_ms = 1600};
  EXPECT_TRUE(judged({killed}, {{kMesh, ended("ECONNRESET")}}).empty());
  EXPECT_EQ(judged({killed}, {{kMesh, ended("EOF")}}).size(), 1U);
  EXPECT_EQ(judged({killed}, {{kPass, ended("ECONNRESET")}}).size(), 1U);
  EXPECT_EQ(judged({killed}, {{kControl, ended("ECONNRESET")}}).size(), 1U);
}

TEST(SoakJudge, both_ends_must_tell_of_the_same_bytes) {
  json server = ended("", "server");
  server["sent"] = 50;
  server["received"] = 100;
  EXPECT_TRUE(judged({}, {{kPass, ended("")}, {kPass, server}}).empty());
  server["received"] = 99;
  EXPECT_EQ(judged({}, {{kPass, ended("")}, {kPass, server}}).size(), 1U);
}

TEST(SoakJudge, a_stall_is_a_finding_unless_plain_tcp_stood_still_too) {
  EXPECT_EQ(judged({}, {{kPass, stood_still(1000, 2000)}}).size(), 1U);
  EXPECT_EQ(
      judged({}, {{kPass, stood_still(1000, 2000)}, {kControl, stood_still(100, 1200)}}).size(),
      1U);
  EXPECT_TRUE(
      judged({}, {{kPass, stood_still(1000, 2000)}, {kControl, stood_still(900, 1800)}}).empty());
}

TEST(SoakJudge, a_stall_is_none_as_long_as_the_other_end_moves) {
  const json client = stood_still(1000, 2100);
  const json server = stood_still(900, 2000, "server");
  const json short_gap = {{"what", "gap"}, {"id", 7},     {"side", "server"},
                          {"from", 1000},  {"now", 1900}, {"in_gap", ""}};
  json end = ended("", "server");
  end["now"] = 9000;
  const auto stalls = [&](const std::vector<json>& lines) {
    std::vector<std::pair<Source, json>> all;
    for (const json& line : lines) {
      all.emplace_back(kPass, line);
    }
    return judged({}, all).size();
  };
  EXPECT_EQ(stalls({client, end}), 0U);
  EXPECT_EQ(stalls({client, short_gap, end}), 0U);
  EXPECT_EQ(stalls({client, server, end}), 2U);
  EXPECT_EQ(stalls({client, short_gap}), 1U) << "it may have gone on";
  end["now"] = 2000;
  EXPECT_EQ(stalls({client, end}), 1U) << "it had ended";
  end["id"] = 8;
  end["now"] = 9000;
  EXPECT_EQ(stalls({client, end}), 1U) << "another connection";
}

TEST(SoakJudge, an_end_that_is_killed_later_had_moved) {
  const auto killed = [](std::int64_t when) {
    return Incident{.cause = Cause::kServerKilled, .world = "pass", .from_ms = when};
  };
  EXPECT_TRUE(judged({killed(2000)}, {{kPass, stood_still(1000, 2000)}}).empty());
  EXPECT_EQ(judged({killed(1900)}, {{kPass, stood_still(1000, 2000)}}).size(), 1U);
  EXPECT_EQ(judged({killed(2000)}, {{kMesh, stood_still(1000, 2000)}}).size(), 1U);
  EXPECT_EQ(judged({killed(2000)}, {{kPass, stood_still(1000, 2000, "server")}}).size(), 1U);
  EXPECT_EQ(judged({killed(2500)},
                   {{kPass, stood_still(1000, 2000)}, {kPass, stood_still(1000, 2000, "server")}})
                .size(),
            2U)
      << "it had told that it stood still";
  json mute = stood_still(1000, 2000);
  mute["received"] = 0;
  EXPECT_EQ(judged({killed(2000)}, {{kPass, mute}}).size(), 1U);
}

TEST(SoakJudge, a_stall_waits_for_what_the_other_end_tells) {
  Judge judge;
  judge.take(kPass, stood_still(1000, 2000), 2000);
  judge.look(6000);
  EXPECT_TRUE(judge.findings().empty());
  json end = ended("", "server");
  end["now"] = 9000;
  judge.take(kPass, end, 9000);
  judge.look(kLater);
  EXPECT_TRUE(judge.findings().empty());
}

TEST(SoakJudge, mptcp_stands_still_by_itself_and_excuses_nobody) {
  json still = stood_still(900, 2100);
  still["mptcp"] = true;
  EXPECT_TRUE(judged({}, {{kPass, still}}).empty());
  EXPECT_EQ(judged({}, {{kControl, still}, {kPass, stood_still(1000, 2000)}}).size(), 1U);
  json given_up = ended("STALLED");
  EXPECT_EQ(judged({}, {{kPass, given_up}, {kPass, ended("ECONNRESET", "server")}}).size(), 2U);
  given_up["mptcp"] = true;
  given_up["id"] = 0;
  EXPECT_EQ(judged({}, {{kPass, given_up}, {kPass, ended("ECONNRESET", "server")}}).size(), 2U);
  given_up["id"] = 7;
  EXPECT_TRUE(judged({}, {{kPass, ended("ECONNRESET", "server")}, {kPass, given_up}}).empty());
}

TEST(SoakJudge, an_agent_that_dies_excuses_only_what_stood_still_from_then_on) {
  const Incident killed{.cause = Cause::kAgentKilled, .from_ms = 1000};
  EXPECT_TRUE(judged({killed}, {{kPass, stood_still(1010, 2010)}}).empty());
  EXPECT_EQ(judged({killed}, {{kPass, stood_still(1500, 2500)}}).size(), 1U);
  EXPECT_EQ(judged({killed}, {{kPass, stood_still(500, 1500)}}).size(), 1U);
  EXPECT_EQ(judged({killed}, {{kPass, ended("STALLED")}}).size(), 1U);
}

TEST(SoakJudge, fionread_may_say_too_little_at_first_and_never_too_much) {
  const json small{{"what", "small"}, {"since_first", 500}};
  const json later{{"what", "small"}, {"since_first", 5000}};
  EXPECT_TRUE(judged({}, {{kPass, small}}).empty());
  EXPECT_EQ(judged({}, {{kPass, later}}).size(), 1U);
  EXPECT_EQ(judged({}, {{kPass, {{"what", "large"}}}}).size(), 1U);
}

TEST(SoakJudge, a_corrupt_byte_is_a_finding_whatever_happened) {
  const Incident killed{.cause = Cause::kEngineKilled, .from_ms = 0};
  EXPECT_EQ(judged({killed}, {{kMesh, {{"what", "corrupt"}}}}).size(), 1U);
}

}  // namespace
}  // namespace sidetrack::soak
