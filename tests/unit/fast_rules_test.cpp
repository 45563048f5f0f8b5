// SPDX-License-Identifier: Apache-2.0
// Every rule of sidetrack/fast_rules.h alone: each reason, each boundary, sequence numbers that
// wrap around. What the rules are worth together: fast_model_test.cpp.
#include "sidetrack/fast_rules.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace {

constexpr std::uint64_t kCookie = 77;
constexpr std::uint32_t kWindow = 1U << 20;
constexpr std::uint32_t kLast = std::numeric_limits<std::uint32_t>::max();

st_sender good_sender() {
  st_sender sender{};
  sender.state = ST_TCP_ESTABLISHED;
  return sender;
}

st_reader good_reader() {
  st_reader reader{};
  reader.cookie = kCookie;
  reader.state = ST_TCP_ESTABLISHED;
  reader.adopted = 1;
  reader.queue_empty = 1;
  reader.nonblocking = 1;
  reader.receive_buffer = 4 * kWindow;
  return reader;
}

template <typename Subject>
struct Rule {
  const char* name;
  std::function<void(Subject&)> apply;
  st_fast_reason reason;
};

st_fast_reason room(const st_reader& reader, std::uint32_t size, bool charges = true,
                    std::uint32_t messages = 0, std::uint32_t bytes = 0) {
  return st_room(&reader, size, kWindow, charges ? 1 : 0, messages, bytes);
}

}  // namespace

TEST(AllRead, holds_only_when_every_byte_was_read) {
  EXPECT_TRUE(st_all_read(1000, 1000));
  EXPECT_FALSE(st_all_read(1001, 1000));
  EXPECT_FALSE(st_all_read(1000, 1001));
  EXPECT_FALSE(st_all_read(1000 + (1U << 31), 1000));
}

TEST(AllRead, wraps_around) {
  EXPECT_TRUE(st_all_read(0, 0));
  EXPECT_TRUE(st_all_read(kLast, kLast));
  EXPECT_TRUE(st_all_read(kLast + 5U, 4));
  EXPECT_FALSE(st_all_read(0, kLast));
  EXPECT_FALSE(st_all_read(kLast, 0));
}

TEST(MayArm, only_late_enough_and_when_the_reader_has_read) {
  EXPECT_TRUE(st_may_arm(10, 10, 5, 6));
  EXPECT_FALSE(st_may_arm(10, 9, 5, 6)) << "too soon";
  EXPECT_FALSE(st_may_arm(10, 10, 5, 5)) << "it has not read";
  EXPECT_FALSE(st_may_arm(0, 10, 5, 6)) << "one of both is not in";
}

TEST(Drain, looks_for_senders_before_and_after_the_queue_and_for_what_came_between) {
  const st_drain_fact order[] = {ST_DRAIN_BROUGHT, ST_DRAIN_SENDING, ST_DRAIN_WAITING,
                                 ST_DRAIN_SENDING, ST_DRAIN_BROUGHT};
  for (int step = 0; step < ST_DRAIN_STEPS; ++step) {
    EXPECT_EQ(st_drain_asks(step), order[step]) << step;
    const bool counts = order[step] == ST_DRAIN_BROUGHT;
    EXPECT_EQ(st_drain_passes(step, 0, 7), counts ? 0 : 1) << step;
    EXPECT_EQ(st_drain_passes(step, 7, 7), counts ? 1 : 0) << step;
  }
}

TEST(RelayEmpty, counts_what_went_by_tcp_and_what_skipped_it) {
  EXPECT_TRUE(st_relay_empty(0, 500, 500, 0));
  EXPECT_TRUE(st_relay_empty(30, 510, 500, 20));
  EXPECT_FALSE(st_relay_empty(29, 510, 500, 20)) << "one byte is inside the engine";
  EXPECT_FALSE(st_relay_empty(31, 510, 500, 20)) << "the engine counts what nobody sent";
  EXPECT_FALSE(st_relay_empty(10, 510, 500, 20)) << "redirected bytes are not out yet";
  EXPECT_FALSE(st_relay_empty(20, 510, 500, 20)) << "bytes of TCP are not out yet";
}

TEST(RelayEmpty, wraps_around) {
  EXPECT_TRUE(st_relay_empty(10, 4, kLast - 5, 0)) << "the sequence numbers wrapped";
  EXPECT_FALSE(st_relay_empty(9, 4, kLast - 5, 0));
  EXPECT_TRUE(st_relay_empty(3, 500, 500, 3)) << "4 GiB more than that were redirected";
  EXPECT_TRUE(st_relay_empty(1, 502, 500, kLast)) << "the sum wrapped";
  EXPECT_FALSE(st_relay_empty(0, 502, 500, kLast));
}

TEST(WindowOf, is_half_of_a_smaller_buffer_that_what_waits_counts_in) {
  st_reader reader = good_reader();
  reader.receive_buffer = kWindow;
  EXPECT_EQ(st_window_of(kWindow, 0, &reader), kWindow) << "it does not count there";
  EXPECT_EQ(st_window_of(kWindow, 1, &reader), kWindow / 2);
  reader.receive_buffer = 2 * kWindow;
  EXPECT_EQ(st_window_of(kWindow, 1, &reader), kWindow);
  reader.receive_buffer = 2 * kWindow - 2;
  EXPECT_EQ(st_window_of(kWindow, 1, &reader), kWindow - 1);
  reader.receive_buffer = 8 * kWindow;
  EXPECT_EQ(st_window_of(kWindow, 1, &reader), kWindow);
  reader.receive_buffer = 0;
  EXPECT_EQ(st_window_of(kWindow, 1, &reader), 0U);
}

TEST(WindowOf, leaves_room_for_what_tcp_has_promised) {
  st_reader reader = good_reader();
  reader.receive_buffer = 3 * kWindow;
  reader.behind = 2 * kWindow;
  EXPECT_EQ(st_window_of(kWindow, 1, &reader), kWindow);
  reader.behind = 2 * kWindow + 1;
  EXPECT_EQ(st_window_of(kWindow, 1, &reader), kWindow - 1);
  EXPECT_EQ(st_window_of(kWindow, 0, &reader), kWindow) << "it does not count there";
  reader.behind = 3 * kWindow;
  EXPECT_EQ(st_window_of(kWindow, 1, &reader), 0U);
  reader.behind = kLast;
  EXPECT_EQ(st_window_of(kWindow, 1, &reader), 0U);
}

TEST(MemoryBehind, is_twice_what_is_offered_or_what_the_sender_can_hold) {
  EXPECT_EQ(st_memory_behind(0, 100), 0U);
  EXPECT_EQ(st_memory_behind(49, 100), 98U);
  EXPECT_EQ(st_memory_behind(50, 100), 100U);
  EXPECT_EQ(st_memory_behind(kLast, 100), 100U);
  EXPECT_EQ(st_memory_behind(kLast, kLast), kLast);
}

TEST(Room, ends_at_the_window_where_the_reader_is_charged) {
  st_reader reader = good_reader();
  reader.queue_empty = 0;
  reader.queued = kWindow - 100;
  EXPECT_EQ(room(reader, 100), ST_FAST_NONE);
  EXPECT_EQ(room(reader, 101), ST_FAST_WINDOW);
  reader.queued = kWindow;
  EXPECT_EQ(room(reader, 0), ST_FAST_NONE);
  EXPECT_EQ(room(reader, 1), ST_FAST_WINDOW);
  reader.queued = kLast;
  EXPECT_EQ(room(reader, 1), ST_FAST_WINDOW) << "more than the window waits already";
  EXPECT_EQ(room(reader, kLast), ST_FAST_WINDOW) << "the sum must not wrap";
}

TEST(Room, counts_for_itself_where_the_reader_is_not_charged) {
  st_reader reader = good_reader();
  reader.queue_empty = 0;
  reader.queued = kLast;  // says nothing on such a kernel
  EXPECT_EQ(room(reader, 100, false, 1, kWindow - 100), ST_FAST_NONE);
  EXPECT_EQ(room(reader, 101, false, 1, kWindow - 100), ST_FAST_WINDOW);
  reader.queue_empty = 1;
  EXPECT_EQ(room(reader, 101, false, 1, kWindow - 100), ST_FAST_NONE) << "all of it was read";
}

TEST(Room, is_never_there_for_more_than_a_window) {
  const st_reader reader = good_reader();
  EXPECT_EQ(room(reader, kWindow), ST_FAST_NONE);
  EXPECT_EQ(room(reader, kWindow + 1), ST_FAST_WINDOW);
  EXPECT_EQ(room(reader, kLast), ST_FAST_WINDOW);
}

TEST(Room, bounds_the_messages_that_wait) {
  st_reader reader = good_reader();
  reader.queue_empty = 0;
  EXPECT_EQ(room(reader, 1, true, ST_FAST_MESSAGES - 1), ST_FAST_NONE);
  EXPECT_EQ(room(reader, 1, true, ST_FAST_MESSAGES), ST_FAST_TOO_MANY);
  EXPECT_EQ(room(reader, 1, false, ST_FAST_MESSAGES), ST_FAST_TOO_MANY);
  reader.queue_empty = 1;
  EXPECT_EQ(room(reader, 1, true, ST_FAST_MESSAGES), ST_FAST_NONE) << "none of them waits";
}

TEST(Room, ends_where_memory_does) {
  st_reader reader = good_reader();
  reader.memory_low = 1;
  EXPECT_EQ(room(reader, 1), ST_FAST_MEMORY);
  reader.queued = kWindow;
  EXPECT_EQ(room(reader, 1), ST_FAST_WINDOW) << "the window is asked first";
}

TEST(SenderAllows, every_reason) {
  const std::vector<Rule<st_sender>> rules = {
      {"CLOSE_WAIT", [](st_sender& s) { s.state = 8; }, ST_FAST_STATE},
      {"FIN_WAIT1", [](st_sender& s) { s.state = 4; }, ST_FAST_STATE},
      {"CLOSE", [](st_sender& s) { s.state = 7; }, ST_FAST_STATE},
      {"state 0", [](st_sender& s) { s.state = 0; }, ST_FAST_STATE},
      {"sk_err", [](st_sender& s) { s.error = 1; }, ST_FAST_STATE},
      {"shut down", [](st_sender& s) { s.shut_down = 1; }, ST_FAST_STATE},
      {"kTLS", [](st_sender& s) { s.ulp = 1; }, ST_FAST_ULP},
      {"zerocopy", [](st_sender& s) { s.zerocopy = 1; }, ST_FAST_ZEROCOPY},
  };
  const st_sender good = good_sender();
  EXPECT_EQ(st_sender_allows(&good), ST_FAST_NONE);
  for (const auto& rule : rules) {
    st_sender sender = good;
    rule.apply(sender);
    EXPECT_EQ(st_sender_allows(&sender), rule.reason) << rule.name;
  }
}

TEST(ReaderAllows, every_reason_in_their_order) {
  // Each beats all later ones.
  const std::vector<Rule<st_reader>> rules = {
      {"another socket", [](st_reader& r) { r.cookie = kCookie + 1; }, ST_FAST_PEER_GONE},
      {"memory that is gone", [](st_reader& r) { r.cookie = 0; }, ST_FAST_PEER_GONE},
      {"not adopted", [](st_reader& r) { r.adopted = 0; }, ST_FAST_PEER_GONE},
      {"CLOSE_WAIT", [](st_reader& r) { r.state = 8; }, ST_FAST_STATE},
      {"shut down", [](st_reader& r) { r.shut_down = 1; }, ST_FAST_STATE},
      {"blocking", [](st_reader& r) { r.nonblocking = 0; }, ST_FAST_BLOCKING},
      {"kTLS", [](st_reader& r) { r.ulp = 1; }, ST_FAST_ULP},
      {"SO_RCVLOWAT", [](st_reader& r) { r.low_water = 1; }, ST_FAST_LOWAT},
      {"SO_PEEK_OFF", [](st_reader& r) { r.peek_off = 1; }, ST_FAST_PEEK_OFF},
      {"SO_TIMESTAMP", [](st_reader& r) { r.timestamps = 1; }, ST_FAST_TIMESTAMPS},
      {"TCP_INQ", [](st_reader& r) { r.inq = 1; }, ST_FAST_INQ},
      {"locked", [](st_reader& r) { r.locked = 1; }, ST_FAST_READER_BUSY},
  };
  const st_reader good = good_reader();
  EXPECT_EQ(st_reader_allows(&good, kCookie), ST_FAST_NONE);
  st_reader all = good;
  for (auto rule = rules.rbegin(); rule != rules.rend(); ++rule) {
    st_reader reader = good;
    rule->apply(reader);
    EXPECT_EQ(st_reader_allows(&reader, kCookie), rule->reason) << rule->name;
    rule->apply(all);
    EXPECT_EQ(st_reader_allows(&all, kCookie), rule->reason) << rule->name << " and all after it";
  }
}

TEST(TcpWouldSend, in_these_states_and_without_an_error) {
  for (std::uint8_t state = 1; state <= 12; ++state) {
    st_sender sender{};
    sender.state = state;
    // ESTABLISHED, CLOSE_WAIT
    EXPECT_EQ(st_tcp_would_send(&sender), state == 1 || state == 8) << int{state};
    sender.error = 1;
    EXPECT_FALSE(st_tcp_would_send(&sender)) << int{state};
    EXPECT_EQ(st_may_read_on(state), state != 7) << int{state};
  }
}

TEST(DeniedNow, waits_for_an_empty_queue_but_for_a_conflict) {
  st_reader reader = good_reader();
  EXPECT_FALSE(st_denied_now(ST_FAST_NONE, &reader));
  EXPECT_TRUE(st_denied_now(ST_FAST_POD_OFF, &reader));
  EXPECT_TRUE(st_denied_now(ST_FAST_MARKED, &reader));
  EXPECT_TRUE(st_denied_now(ST_FAST_CONFLICT, &reader));
  reader.queue_empty = 0;
  EXPECT_FALSE(st_denied_now(ST_FAST_NONE, &reader));
  EXPECT_FALSE(st_denied_now(ST_FAST_POD_OFF, &reader));
  EXPECT_FALSE(st_denied_now(ST_FAST_MARKED, &reader));
  EXPECT_TRUE(st_denied_now(ST_FAST_CONFLICT, &reader));
}

namespace {

st_pod pod_of(std::uint32_t slot, std::uint8_t fast_path, std::uint8_t mode = ST_MODE_REDIRECT) {
  st_pod pod{};
  pod.mode = mode;
  pod.fast_path = fast_path;
  pod.namespace_slot = slot;
  return pod;
}

st_fast_reason allow(const st_pod& a, const st_pod& b) {
  const st_fast_reason one = st_pods_allow(&a, &b);
  EXPECT_EQ(one, st_pods_allow(&b, &a)) << "both directions are judged alike";
  return one;
}

}  // namespace

TEST(PodsAllow, within_one_namespace) {
  const st_pod good = pod_of(3, ST_FAST_PATH_AUTO);
  EXPECT_EQ(allow(good, good), ST_FAST_NONE);
  EXPECT_EQ(allow(good, pod_of(3, ST_FAST_PATH_NODE)), ST_FAST_NONE);
  EXPECT_EQ(allow(good, pod_of(3, ST_FAST_PATH_OFF)), ST_FAST_POD_OFF);
  EXPECT_EQ(allow(good, pod_of(3, ST_FAST_PATH_AUTO, ST_MODE_DISABLED)), ST_FAST_POD_OFF);
  EXPECT_EQ(st_pods_allow(&good, nullptr), ST_FAST_POD_OFF);
  EXPECT_EQ(st_pods_allow(nullptr, &good), ST_FAST_POD_OFF);
  EXPECT_EQ(st_pods_allow(nullptr, nullptr), ST_FAST_POD_OFF);
}

TEST(PodsAllow, two_namespaces_only_if_both_say_node) {
  const st_pod automatic = pod_of(3, ST_FAST_PATH_AUTO);
  const st_pod node = pod_of(3, ST_FAST_PATH_NODE);
  EXPECT_EQ(allow(automatic, pod_of(4, ST_FAST_PATH_AUTO)), ST_FAST_OTHER_NAMESPACE);
  EXPECT_EQ(allow(automatic, pod_of(4, ST_FAST_PATH_NODE)), ST_FAST_OTHER_NAMESPACE);
  EXPECT_EQ(allow(node, pod_of(4, ST_FAST_PATH_AUTO)), ST_FAST_OTHER_NAMESPACE);
  EXPECT_EQ(allow(node, pod_of(4, ST_FAST_PATH_NODE)), ST_FAST_NONE);
  EXPECT_EQ(allow(node, pod_of(4, ST_FAST_PATH_OFF)), ST_FAST_POD_OFF);
}

TEST(PodsAllow, slot_0_is_many_namespaces) {
  const st_pod automatic = pod_of(0, ST_FAST_PATH_AUTO);
  EXPECT_EQ(allow(automatic, automatic), ST_FAST_OTHER_NAMESPACE);
  const st_pod node = pod_of(0, ST_FAST_PATH_NODE);
  EXPECT_EQ(allow(node, node), ST_FAST_NONE);
}

TEST(Fin, waits_while_bytes_of_both_kinds_are_before_it) {
  EXPECT_TRUE(st_fin_waits(0, 12, 11));
  EXPECT_TRUE(st_fin_waits(0, 0, 0xffffffff)) << "numbers wrap";
  EXPECT_FALSE(st_fin_waits(0, 12, 12)) << "all of TCP is read";
  EXPECT_FALSE(st_fin_waits(1, 12, 11)) << "nothing waits past TCP";
}

std::uint64_t patience_ms(const st_fin_limits& limits) {
  return st_fin_patience(&limits) / 1'000'000;
}

// A socket is tried after 200 ms and then after twice as long each time. One try must pass.
TEST(Fin, passes_before_tcp_gives_the_socket_up) {
  for (unsigned tries = 1; tries <= 8; ++tries) {
    const std::uint64_t last_try = 200 * ((1ULL << tries) - 1);
    const std::uint64_t patience = patience_ms({.orphan_retries = tries, .retries = 15});
    EXPECT_LT(patience, last_try) << tries;
    EXPECT_GT(patience, 2 * last_try / 5) << tries;
    EXPECT_EQ(patience_ms({.retries = tries}), patience) << "a half-closed one";
  }
  EXPECT_EQ(patience_ms({.retries = 15}), patience_ms({.orphan_retries = 8, .retries = 15}));
  EXPECT_EQ(patience_ms({.orphan_retries = 100, .retries = 15}), patience_ms({.retries = 15}));
  EXPECT_EQ(patience_ms({.retries = 0}), 0U);
}

TEST(Fin, passes_before_the_tries_are_as_far_apart_as_they_may_be) {
  EXPECT_EQ(patience_ms({.retries = 15, .rto_max_ms = 120'000}), patience_ms({.retries = 15}));
  EXPECT_EQ(patience_ms({.retries = 15, .rto_max_ms = 1000}), patience_ms({.retries = 2}));
}

TEST(Fin, passes_before_the_user_timeout) {
  EXPECT_EQ(patience_ms({.retries = 15, .user_timeout_ms = 5000}), 2500U);
  EXPECT_EQ(patience_ms({.retries = 1, .user_timeout_ms = 5000}), patience_ms({.retries = 1}));
}

TEST(EngineEnd, is_the_server_of_a_pair_to_and_the_client_of_one_from_an_engine) {
  EXPECT_TRUE(st_is_engine_end(ST_PAIR_TO_ENGINE, ST_SIDE_SERVER));
  EXPECT_FALSE(st_is_engine_end(ST_PAIR_TO_ENGINE, ST_SIDE_CLIENT));
  EXPECT_TRUE(st_is_engine_end(ST_PAIR_FROM_ENGINE, ST_SIDE_CLIENT));
  EXPECT_FALSE(st_is_engine_end(ST_PAIR_FROM_ENGINE, ST_SIDE_SERVER));
  EXPECT_FALSE(st_is_engine_end(ST_PAIR_DIRECT, ST_SIDE_CLIENT));
  EXPECT_FALSE(st_is_engine_end(ST_PAIR_DIRECT, ST_SIDE_SERVER));
}

TEST(WhyOnTcp, is_what_was_found_last) {
  st_client client{};
  client.fast_path = ST_FAST_PATH_AUTO;
  client.paired = 1;
  st_pair pair{};
  EXPECT_EQ(st_why_on_tcp(&client, nullptr), ST_FAST_NO_PEER) << "given back";
  EXPECT_EQ(st_why_on_tcp(&client, &pair), ST_FAST_NO_PEER) << "its server was not seen";
  pair.end[ST_SIDE_SERVER].cookie = 1;
  EXPECT_EQ(st_why_on_tcp(&client, &pair), ST_FAST_YOUNG);
  pair.against = ST_FAST_BLOCKING;
  EXPECT_EQ(st_why_on_tcp(&client, &pair), ST_FAST_BLOCKING);
}

TEST(WhyOnTcp, of_a_connection_that_was_never_noted_is_why_it_was_not) {
  st_client client{};
  st_pair of_another{};
  of_another.end[ST_SIDE_SERVER].cookie = 1;
  of_another.against = ST_FAST_BLOCKING;
  client.fast_path = ST_FAST_PATH_AUTO;
  EXPECT_EQ(st_why_on_tcp(&client, &of_another), ST_FAST_NODE_OFF);
  client.unpaired = ST_FAST_PAIRS_FULL;
  EXPECT_EQ(st_why_on_tcp(&client, nullptr), ST_FAST_PAIRS_FULL);
  client.fast_path = ST_FAST_PATH_OFF;
  EXPECT_EQ(st_why_on_tcp(&client, nullptr), ST_FAST_POD_OFF);
}
