// SPDX-License-Identifier: Apache-2.0
// Which listener gets a connection and whether the engine can take it: what is asked first, and
// when a budget of local ports counts as used.
#include "sidetrack/choose.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>

namespace {

constexpr __u64 kNow = 100'000'000'000;
constexpr __u32 kBudget = 10;

struct Case {
  st_pod pod{};
  std::optional<st_engine> engine = st_engine{};
  std::optional<st_pod_state> state = st_pod_state{};
  std::optional<__s64> records = 0;
  st_addr destination{};
  __u32 port = 80;
  st_engine_state listener = ST_ENGINE_READY;
  std::optional<__u32> looked_at;
  st_choice choice{};

  Case() {
    destination.bytes[10] = destination.bytes[11] = 0xff;
    destination.bytes[12] = 10;
    engine->beat_ns = kNow - 1;
    pod.listeners_v4 = pod.listeners_v6 = 4;
    pod.port_budget = kBudget;
    pod.budget_shift = 30;
  }
  st_engine_state choose() {
    const st_engine_facts facts{.pod = &pod,
                                .engine = engine ? &*engine : nullptr,
                                .pod_state = state ? &*state : nullptr,
                                .records = records ? &*records : nullptr,
                                .destination = &destination,
                                .now_ns = kNow,
                                .port = port};
    const auto look = [](void* context, int, __u32 index) {
      auto* self = static_cast<Case*>(context);
      self->looked_at = index;
      return self->listener;
    };
    looked_at.reset();
    choice = {};
    return st_choose(&facts, &choice, look, this);
  }
  void use_up(__u32 budget_index) { state->budget[budget_index].live = kBudget; }
};

TEST(Choose, takes_a_listener_of_the_family) {
  Case c;
  EXPECT_EQ(c.choose(), ST_ENGINE_READY);
  EXPECT_LT(c.choice.budget_index, 4U);
  EXPECT_EQ(c.looked_at, c.choice.budget_index);
  c.destination = {{0x20, 1}};
  EXPECT_EQ(c.choose(), ST_ENGINE_READY);
  EXPECT_GE(c.choice.budget_index, __u32{ST_MAX_LISTENERS});
  EXPECT_EQ(c.looked_at, c.choice.budget_index - ST_MAX_LISTENERS);
}

TEST(Choose, an_engine_that_does_not_beat_is_down_before_it_is_full) {
  Case c;
  c.engine->full = 1;
  EXPECT_EQ(c.choose(), ST_ENGINE_FULL);
  c.engine->beat_ns = kNow - ST_HEARTBEAT_STALE_NS;
  EXPECT_EQ(c.choose(), ST_ENGINE_DOWN);
  c.engine.reset();
  EXPECT_EQ(c.choose(), ST_ENGINE_DOWN);
  EXPECT_FALSE(c.looked_at);
}

TEST(Choose, a_full_engine_is_full_before_ports_or_records_are_looked_at) {
  Case c;
  c.engine->full = 1;
  c.state.reset();
  EXPECT_EQ(c.choose(), ST_ENGINE_FULL);
}

TEST(Choose, without_room_for_a_record_nothing_is_taken) {
  Case c;
  c.state->records = ST_RECORD_QUOTA;
  EXPECT_EQ(c.choose(), ST_ENGINE_NO_RECORD);
  c.state->records = ST_RECORD_QUOTA - 1;
  c.records = ST_MAX_RECORDS - ST_RECORD_HEADROOM;
  EXPECT_EQ(c.choose(), ST_ENGINE_NO_RECORD);
  c.records = ST_MAX_RECORDS - ST_RECORD_HEADROOM - 1;
  EXPECT_EQ(c.choose(), ST_ENGINE_READY);
  c.records.reset();
  EXPECT_EQ(c.choose(), ST_ENGINE_NO_RECORD);
  c.state.reset();
  EXPECT_EQ(c.choose(), ST_ENGINE_NO_RECORD);
}

TEST(Choose, what_the_listener_is_counts) {
  Case c;
  for (const st_engine_state state : {ST_ENGINE_DOWN, ST_ENGINE_FULL}) {
    c.listener = state;
    EXPECT_EQ(c.choose(), state);
  }
  c.pod.listeners_v4 = 0;
  c.listener = ST_ENGINE_READY;
  EXPECT_EQ(c.choose(), ST_ENGINE_DOWN);
}

TEST(Choose, a_destination_has_a_second_listener_and_no_third) {
  Case c;
  ASSERT_EQ(c.choose(), ST_ENGINE_READY);
  const __u32 first = c.choice.budget_index;
  const __u32 second = (first + 1) % 4;
  c.use_up(first);
  EXPECT_EQ(c.choose(), ST_ENGINE_READY);
  EXPECT_EQ(c.choice.budget_index, second);
  c.use_up(second);
  EXPECT_EQ(c.choose(), ST_ENGINE_PORTS_USED);
  c.state->budget[second].live = kBudget - 1;
  EXPECT_EQ(c.choose(), ST_ENGINE_READY);
  // The first one was well: what is missing are its ports.
  c.listener = ST_ENGINE_DOWN;
  EXPECT_EQ(c.choose(), ST_ENGINE_PORTS_USED);
}

TEST(Choose, no_room_for_a_record_is_said_before_used_ports) {
  Case c;
  for (__u32 i = 0; i < 4; ++i) {
    c.use_up(i);
  }
  c.state->records = ST_RECORD_QUOTA;
  EXPECT_EQ(c.choose(), ST_ENGINE_NO_RECORD);
}

TEST(Choose, an_external_engine_has_one_listener_a_family) {
  Case c;
  c.pod.external = 1;
  EXPECT_EQ(c.choose(), ST_ENGINE_DOWN);
  c.engine->listener_cookie_v4 = 7;
  EXPECT_EQ(c.choose(), ST_ENGINE_READY);
  EXPECT_EQ(c.choice.budget_index, 0U);
  c.use_up(0);
  EXPECT_EQ(c.choose(), ST_ENGINE_PORTS_USED);
  c.destination = {{0x20, 1}};
  c.engine->listener_cookie_v6 = 8;
  EXPECT_EQ(c.choose(), ST_ENGINE_READY);
  EXPECT_EQ(c.choice.budget_index, __u32{ST_MAX_LISTENERS});
}

TEST(Budget, counts_closed_connections_for_one_to_two_spans) {
  const st_budget budget{
      .live = 3, .epoch = 0xffffffffU, .closed = 20, .closed_before = 100, .reserved = 0};
  EXPECT_EQ(st_budget_used(&budget, 0xffffffffU), 123);
  EXPECT_EQ(st_budget_used(&budget, 0), 23);  // the next one
  EXPECT_EQ(st_budget_used(&budget, 1), 3);
  const st_budget negative{.live = -2, .epoch = 5, .closed = 0, .closed_before = 0, .reserved = 0};
  EXPECT_EQ(st_budget_used(&negative, 5), 0);
}

TEST(Budget, epoch_has_the_bits_that_are_kept) {
  st_pod pod{};
  pod.budget_shift = 4;
  EXPECT_EQ(st_budget_epoch(&pod, 0xf'ffff'fff7), 0xffffffffU);
  EXPECT_EQ(st_budget_epoch(&pod, 0x10'0000'0000), 0U);
}

TEST(Choose, spreads_destinations_that_differ_in_one_byte_or_the_port) {
  Case c;
  std::set<__u32> of_addresses;
  std::set<__u32> of_ports;
  for (unsigned i = 1; i <= 32; ++i) {
    c.destination.bytes[15] = static_cast<__u8>(i);
    of_addresses.insert(st_pick(&c.destination, 80, 8));
    of_ports.insert(st_pick(&c.destination, 7000 + i, 8));
  }
  EXPECT_EQ(of_addresses.size(), 8U);
  EXPECT_EQ(of_ports.size(), 8U);
}

}  // namespace
