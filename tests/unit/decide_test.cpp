// SPDX-License-Identifier: Apache-2.0
// The verdict order of docs/policy.md, step by step: each step beats all later ones, and nothing is
// asked for that is not needed.
#include "sidetrack/decide.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace {

st_addr address(const std::string& text) {
  st_addr parsed{};
  if (inet_pton(AF_INET6, text.c_str(), parsed.bytes) == 1) {
    return parsed;
  }
  parsed = st_addr{};
  parsed.bytes[10] = parsed.bytes[11] = 0xff;
  EXPECT_EQ(inet_pton(AF_INET, text.c_str(), parsed.bytes + 12), 1) << text;
  return parsed;
}

// Everything that decides about one connect, and how often rules and engine were asked for.
struct Case {
  st_connect connect{};
  st_pod pod{};
  bool has_pod = true;
  st_rules rules{};
  st_engine_state engine = ST_ENGINE_READY;
  int rules_asked = 0;
  int engine_asked = 0;

  Case() {
    connect.tcp = 1;
    connect.destination = address("10.0.0.1");
    pod.mode = ST_MODE_REDIRECT;
    pod.own_v4 = address("10.244.0.7");
    pod.own_v6 = address("fd44::7");
  }
  st_reason decide() {
    const auto read_rules = [](void* context, st_rules* out) {
      auto* self = static_cast<Case*>(context);
      ++self->rules_asked;
      *out = self->rules;
    };
    const auto read_engine = [](void* context) {
      auto* self = static_cast<Case*>(context);
      ++self->engine_asked;
      return self->engine;
    };
    return st_decide(&connect, has_pod ? &pod : nullptr, read_rules, read_engine, this);
  }
};

struct Step {
  const char* name;
  st_reason reason;
  std::function<void(Case&)> apply;
  int rules_asked;
  int engine_asked;
};

// In the order of the verdict. Steps of one group set the same field and cannot be combined.
const std::vector<Step>& steps() {
  static const std::vector<Step> kSteps = {
      {"not_tcp", ST_REASON_NOT_TCP, [](Case& c) { c.connect.tcp = 0; }, 0, 0},
      {"bypass", ST_REASON_BYPASS, [](Case& c) { c.connect.bypass = 1; }, 0, 0},
      {"unknown_netns", ST_REASON_UNKNOWN_NETNS, [](Case& c) { c.has_pod = false; }, 0, 0},
      {"not_enrolled", ST_REASON_NOT_ENROLLED, [](Case& c) { c.pod.mode = ST_MODE_DISABLED; }, 0,
       0},
      {"engine_socket", ST_REASON_ENGINE_SOCKET, [](Case& c) { c.connect.engine_socket = 1; }, 0,
       0},
      {"passthrough", ST_REASON_PASSTHROUGH,
       [](Case& c) {
         c.pod.mode = c.pod.mode == ST_MODE_DISABLED ? c.pod.mode : __u8{ST_MODE_PASSTHROUGH};
       },
       0, 0},
      {"local_destination", ST_REASON_LOCAL_DESTINATION,
       [](Case& c) { c.connect.destination = address("127.0.0.1"); }, 0, 0},
      {"engine_address", ST_REASON_LOCAL_DESTINATION, [](Case& c) { c.connect.engine_address = 1; },
       0, 0},
      {"bound_device", ST_REASON_BOUND_DEVICE, [](Case& c) { c.connect.bound_device = 1; }, 0, 0},
      {"transparent", ST_REASON_TRANSPARENT, [](Case& c) { c.connect.transparent = 1; }, 0, 0},
      {"mptcp", ST_REASON_MPTCP, [](Case& c) { c.connect.mptcp = 1; }, 0, 0},
      {"bound_port", ST_REASON_BOUND_PORT, [](Case& c) { c.connect.shared_port = 1; }, 0, 0},
      {"excluded_port", ST_REASON_EXCLUDED_PORT, [](Case& c) { c.rules.excluded_port = 1; }, 1, 0},
      {"excluded_cidr", ST_REASON_EXCLUDED_CIDR, [](Case& c) { c.rules.excluded_cidr = 1; }, 1, 0},
      {"not_included", ST_REASON_NOT_INCLUDED, [](Case& c) { c.rules.has_include = 1; }, 1, 0},
      {"engine_down", ST_REASON_ENGINE_DOWN, [](Case& c) { c.engine = ST_ENGINE_DOWN; }, 1, 1},
  };
  return kSteps;
}

TEST(Decide, redirects_when_nothing_speaks_against_it) {
  Case c;
  EXPECT_EQ(c.decide(), ST_REASON_REDIRECTED);
  EXPECT_EQ(c.rules_asked, 1);
  EXPECT_EQ(c.engine_asked, 1);
}

TEST(Decide, each_step_decides_and_asks_only_for_what_it_needs) {
  for (const Step& step : steps()) {
    Case c;
    step.apply(c);
    EXPECT_EQ(c.decide(), step.reason) << step.name;
    EXPECT_EQ(c.rules_asked, step.rules_asked) << step.name;
    EXPECT_EQ(c.engine_asked, step.engine_asked) << step.name;
  }
}

// Every subset of the steps: the first of them decides.
TEST(Decide, earliest_step_of_any_combination_decides) {
  const std::size_t combinations = std::size_t{1} << steps().size();
  for (std::size_t bits = 1; bits < combinations; ++bits) {
    Case c;
    const Step* first = nullptr;
    for (std::size_t i = 0; i < steps().size(); ++i) {
      if ((bits >> i & 1U) != 0) {
        first = first == nullptr ? &steps()[i] : first;
        steps()[i].apply(c);
      }
    }
    ASSERT_EQ(c.decide(), first->reason) << bits << " " << first->name;
    ASSERT_EQ(c.rules_asked, first->rules_asked) << bits << " " << first->name;
    ASSERT_EQ(c.engine_asked, first->engine_asked) << bits << " " << first->name;
  }
}

TEST(Decide, included_destination_is_redirected) {
  Case c;
  c.rules.has_include = 1;
  c.rules.included = 1;
  EXPECT_EQ(c.decide(), ST_REASON_REDIRECTED);
}

TEST(Decide, exclude_beats_include) {
  Case c;
  c.rules.has_include = c.rules.included = c.rules.excluded_cidr = 1;
  EXPECT_EQ(c.decide(), ST_REASON_EXCLUDED_CIDR);
}

TEST(Decide, included_without_an_include_list_means_nothing) {
  Case c;
  c.rules.included = 1;
  EXPECT_EQ(c.decide(), ST_REASON_REDIRECTED);
}

struct EngineRow {
  const char* name;
  st_engine_state state;
  st_on_engine_loss loss;
  st_reason reason;
  st_verdict verdict;
};

class EngineTest : public ::testing::TestWithParam<EngineRow> {};

TEST_P(EngineTest, decides) {
  Case c;
  c.engine = GetParam().state;
  c.pod.on_engine_loss = static_cast<__u8>(GetParam().loss);
  const st_reason reason = c.decide();
  EXPECT_EQ(reason, GetParam().reason);
  EXPECT_EQ(st_verdict_of(reason), GetParam().verdict);
}

constexpr auto kOpen = ST_ON_ENGINE_LOSS_OPEN;
constexpr auto kClosed = ST_ON_ENGINE_LOSS_CLOSED;

INSTANTIATE_TEST_SUITE_P(
    Decide, EngineTest,
    ::testing::Values(
        EngineRow{"ready_open", ST_ENGINE_READY, kOpen, ST_REASON_REDIRECTED,
                  ST_VERDICT_redirected},
        EngineRow{"ready_closed", ST_ENGINE_READY, kClosed, ST_REASON_REDIRECTED,
                  ST_VERDICT_redirected},
        EngineRow{"down_open", ST_ENGINE_DOWN, kOpen, ST_REASON_ENGINE_DOWN, ST_VERDICT_direct},
        EngineRow{"down_closed", ST_ENGINE_DOWN, kClosed, ST_REASON_ENGINE_DOWN_CLOSED,
                  ST_VERDICT_refused},
        EngineRow{"full_open", ST_ENGINE_FULL, kOpen, ST_REASON_ENGINE_FULL, ST_VERDICT_direct},
        EngineRow{"full_closed", ST_ENGINE_FULL, kClosed, ST_REASON_ENGINE_DOWN_CLOSED,
                  ST_VERDICT_refused},
        EngineRow{"ports_open", ST_ENGINE_PORTS_USED, kOpen, ST_REASON_PORT_BUDGET,
                  ST_VERDICT_direct},
        EngineRow{"ports_closed", ST_ENGINE_PORTS_USED, kClosed, ST_REASON_PORT_BUDGET,
                  ST_VERDICT_direct},
        EngineRow{"no_record_open", ST_ENGINE_NO_RECORD, kOpen, ST_REASON_INTERNAL_ERROR,
                  ST_VERDICT_direct},
        EngineRow{"no_record_closed", ST_ENGINE_NO_RECORD, kClosed, ST_REASON_ENGINE_DOWN_CLOSED,
                  ST_VERDICT_refused}),
    [](const auto& row) { return row.param.name; });

struct DestinationRow {
  const char* text;
  bool local;
};

class DestinationTest : public ::testing::TestWithParam<DestinationRow> {};

TEST_P(DestinationTest, is_local_or_not) {
  Case c;
  c.connect.destination = address(GetParam().text);
  EXPECT_EQ(c.decide(), GetParam().local ? ST_REASON_LOCAL_DESTINATION : ST_REASON_REDIRECTED)
      << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(
    Decide, DestinationTest,
    ::testing::Values(DestinationRow{"127.0.0.1", true}, DestinationRow{"127.255.255.255", true},
                      DestinationRow{"128.0.0.1", false}, DestinationRow{"126.255.255.255", false},
                      DestinationRow{"0.0.0.0", true}, DestinationRow{"0.0.0.1", false},
                      DestinationRow{"169.254.169.254", true}, DestinationRow{"169.253.0.1", false},
                      DestinationRow{"169.255.0.1", false},
                      DestinationRow{"223.255.255.255", false}, DestinationRow{"224.0.0.1", true},
                      DestinationRow{"255.255.255.255", true}, DestinationRow{"10.244.0.7", true},
                      DestinationRow{"10.244.0.8", false}, DestinationRow{"::ffff:127.0.0.1", true},
                      DestinationRow{"::ffff:169.254.1.1", true},
                      DestinationRow{"::ffff:10.244.0.7", true},
                      DestinationRow{"::ffff:10.0.0.1", false}, DestinationRow{"::", true},
                      DestinationRow{"::1", true}, DestinationRow{"::2", false},
                      DestinationRow{"::7f00:1", false}, DestinationRow{"fe80::1", true},
                      DestinationRow{"febf::1", true}, DestinationRow{"fec0::1", false},
                      DestinationRow{"fe7f::1", false}, DestinationRow{"ff02::1", true},
                      DestinationRow{"fd44::7", true}, DestinationRow{"fd44::8", false},
                      DestinationRow{"2001:db8::1", false}));

st_config external_engine(const char* v4, const char* v6) {
  st_config config{};
  if (v4 != nullptr) {
    config.external_v4 = address(v4);
    config.external_v4_port_be = htons(15'001);
  }
  if (v6 != nullptr) {
    config.external_v6 = address(v6);
    config.external_v6_port_be = htons(15'006);
  }
  return config;
}

TEST(Decide, knows_address_and_port_of_an_external_engine) {
  struct Row {
    const char* to;
    std::uint16_t port;
    bool is_engine;
  };
  const st_config both = external_engine("192.0.2.1", "fd44::1");
  for (const Row& row :
       {Row{"192.0.2.1", 15'001, true}, Row{"::ffff:192.0.2.1", 15'001, true},
        Row{"fd44::1", 15'006, true}, Row{"192.0.2.1", 15'006, false}, Row{"192.0.2.1", 80, false},
        Row{"192.0.2.2", 15'001, false}, Row{"fd44::1", 15'001, false},
        Row{"fd44::2", 15'006, false}, Row{"10.0.0.1", 0, false}}) {
    const st_addr to = address(row.to);
    EXPECT_EQ(st_is_engine_at(&both, &to, htons(row.port)) != 0, row.is_engine)
        << row.to << " " << row.port;
  }
}

TEST(Decide, knows_no_address_of_an_engine_that_has_none) {
  const st_addr v4 = address("192.0.2.1");
  const st_addr v6 = address("fd44::1");
  const st_config none = external_engine(nullptr, nullptr);
  const st_config only_v4 = external_engine("192.0.2.1", nullptr);
  const st_config only_v6 = external_engine(nullptr, "fd44::1");
  for (const std::uint16_t port : std::vector<std::uint16_t>{0, 15'001, 15'006}) {
    EXPECT_EQ(st_is_engine_at(&none, &v4, htons(port)), 0) << port;
    EXPECT_EQ(st_is_engine_at(&none, &v6, htons(port)), 0) << port;
    EXPECT_EQ(st_is_engine_at(&only_v4, &v6, htons(port)), 0) << port;
    EXPECT_EQ(st_is_engine_at(&only_v6, &v4, htons(port)), 0) << port;
  }
}

TEST(Decide, source_bound_to_loopback_is_left_alone) {
  for (const char* const text : {"127.0.0.5", "::1"}) {
    Case c;
    c.connect.bound_source = address(text);
    EXPECT_EQ(c.decide(), ST_REASON_LOCAL_DESTINATION) << text;
  }
  Case c;
  c.connect.bound_source = address("10.244.0.7");
  EXPECT_EQ(c.decide(), ST_REASON_REDIRECTED);
}

TEST(Decide, only_two_reasons_refuse_and_one_redirects) {
  for (int i = 0; i < ST_REASON_COUNT; ++i) {
    const auto reason = static_cast<st_reason>(i);
    const bool refuses =
        reason == ST_REASON_ENGINE_DOWN_CLOSED || reason == ST_REASON_NO_ORIGINAL_DESTINATION;
    const st_verdict other =
        reason == ST_REASON_REDIRECTED ? ST_VERDICT_redirected : ST_VERDICT_direct;
    EXPECT_EQ(st_verdict_of(reason), refuses ? ST_VERDICT_refused : other) << i;
  }
}

bool is_observed(Case& c, st_reason reason) {
  const auto read_rules = [](void* context, st_rules* out) {
    auto* self = static_cast<Case*>(context);
    ++self->rules_asked;
    *out = self->rules;
  };
  return st_is_observed(reason, &c.connect, &c.pod, read_rules, &c) != 0;
}

// Every rule and kind of destination.
std::vector<Case> all_connects() {
  std::vector<Case> cases;
  for (const char* const to : {"10.0.0.1", "2001:db8::1", "127.0.0.1", "169.254.1.1", "::1",
                               "10.244.0.7", "fd44::7", "ff02::1"}) {
    for (unsigned bits = 0; bits < 32; ++bits) {
      Case c;
      c.connect.destination = address(to);
      c.connect.engine_address = bits & 1U;
      c.rules = {.excluded_port = static_cast<__u8>(bits >> 1 & 1U),
                 .excluded_cidr = static_cast<__u8>(bits >> 2 & 1U),
                 .has_include = static_cast<__u8>(bits >> 3 & 1U),
                 .included = static_cast<__u8>(bits >> 4 & 1U)};
      cases.push_back(c);
    }
  }
  return cases;
}

TEST(Observed, is_what_an_engine_would_have_got) {
  int observed = 0;
  for (Case c : all_connects()) {
    const bool wanted = c.decide() == ST_REASON_REDIRECTED;
    c.rules_asked = 0;
    c.pod.mode = ST_MODE_PASSTHROUGH;
    EXPECT_EQ(is_observed(c, c.decide()), wanted);
    EXPECT_LE(c.rules_asked, 1);
    observed += wanted ? 1 : 0;
  }
  EXPECT_GT(observed, 0);
}

// These were decided after the rules: nothing is asked again.
TEST(Observed, is_of_the_other_reasons_what_the_engine_could_not_take) {
  for (Case c : all_connects()) {
    for (int i = 0; i < ST_REASON_COUNT; ++i) {
      const auto reason = static_cast<st_reason>(i);
      if (reason != ST_REASON_PASSTHROUGH) {
        EXPECT_EQ(is_observed(c, reason), reason == ST_REASON_ENGINE_DOWN ||
                                              reason == ST_REASON_ENGINE_FULL ||
                                              reason == ST_REASON_PORT_BUDGET)
            << i;
      }
    }
    EXPECT_EQ(c.rules_asked, 0);
  }
}

constexpr std::uint64_t kSecond = 1'000'000'000;

TEST(Beat, is_fresh_for_one_second) {
  constexpr std::uint64_t kBeat = 5 * kSecond + 7;
  EXPECT_TRUE(st_beat_is_fresh(kBeat, kBeat));
  EXPECT_TRUE(st_beat_is_fresh(kBeat, kBeat + kSecond - 1));
  EXPECT_FALSE(st_beat_is_fresh(kBeat, kBeat + kSecond + 1));
  EXPECT_FALSE(st_beat_is_fresh(kBeat, kBeat + 3600 * kSecond));
}

TEST(Beat, that_came_while_the_clock_was_read_is_fresh) {
  EXPECT_TRUE(st_beat_is_fresh(5 * kSecond, 5 * kSecond - 1));
}

TEST(Beat, of_an_engine_that_never_beat_is_not_fresh) {
  EXPECT_FALSE(st_beat_is_fresh(0, 0));
  EXPECT_FALSE(st_beat_is_fresh(0, kSecond / 2));  // soon after the machine's start
}

}  // namespace
