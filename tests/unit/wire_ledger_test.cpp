// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "agent/engines/pod_ledger.h"

namespace sidetrack::engines {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const PodLedger::Clock::time_point kStart{seconds(1000)};
const PodListeners kListeners{.v4 = {{.port = 15900, .cookie = 1}}, .v6 = {}};

PodLedger::Request ask(PodLedger& ledger, std::uint64_t cookie, PodLedger::Clock::time_point now) {
  EXPECT_EQ(ledger.next_due(), cookie);
  const auto request = ledger.begin(cookie, now);
  EXPECT_TRUE(request);
  return request.value_or(PodLedger::Request{});
}

TEST(PodLedger, answers_only_the_last_request) {
  PodLedger ledger({});
  ledger.want(7);
  const auto first = ask(ledger, 7, kStart);
  ledger.want(7);
  const auto second = ask(ledger, 7, kStart);
  EXPECT_EQ(ledger.unanswered(), 1U);
  EXPECT_FALSE(ledger.answered(7, first.id, kListeners));
  EXPECT_EQ(ledger.listeners(7), nullptr);
  EXPECT_TRUE(ledger.answered(7, second.id, kListeners));
  EXPECT_EQ(ledger.unanswered(), 0U);
  ASSERT_NE(ledger.listeners(7), nullptr);
  EXPECT_FALSE(ledger.next_expiry());
}

TEST(PodLedger, has_at_most_64_unanswered) {
  PodLedger ledger({});
  for (std::uint64_t cookie = 1; cookie <= 100; ++cookie) {
    ledger.want(cookie);
  }
  while (const auto cookie = ledger.next_due()) {
    ASSERT_TRUE(ledger.begin(*cookie, kStart));
  }
  EXPECT_EQ(ledger.unanswered(), 64U);
  ledger.forget(3);
  EXPECT_EQ(ledger.next_due(), 65U);
}

TEST(PodLedger, an_overdue_answer_fails_and_is_asked_again_with_growing_delay) {
  PodLedger ledger({});
  ledger.want(7);
  static_cast<void>(ask(ledger, 7, kStart));
  EXPECT_TRUE(ledger.expire(kStart + milliseconds(4999)).empty());
  auto now = kStart + seconds(5);
  EXPECT_EQ(ledger.expire(now), std::vector<std::uint64_t>{7});
  EXPECT_EQ(ledger.unanswered(), 0U);
  for (const int delay_ms : {500, 1000, 2000, 4000, 8000, 16000, 30000, 30000}) {
    SCOPED_TRACE(delay_ms);
    EXPECT_EQ(ledger.next_expiry(), now + milliseconds(delay_ms));
    now += milliseconds(delay_ms);
    EXPECT_TRUE(ledger.expire(now).empty());
    const auto request = ask(ledger, 7, now);
    EXPECT_TRUE(ledger.refused(7, request.id, now));
  }
}

TEST(PodLedger, a_late_answer_counts_while_nothing_newer_was_asked) {
  PodLedger ledger({});
  ledger.want(7);
  const auto request = ask(ledger, 7, kStart);
  EXPECT_EQ(ledger.expire(kStart + seconds(5)).size(), 1U);
  EXPECT_TRUE(ledger.answered(7, request.id, kListeners));
  EXPECT_FALSE(ledger.next_expiry());
}

TEST(PodLedger, reopens_what_listened_and_sends_it_whole_after_a_failure) {
  PodLedger ledger({});
  ledger.want(7);
  EXPECT_TRUE(ledger.answered(7, ask(ledger, 7, kStart).id, kListeners));
  ledger.want_reopen(7);
  const auto reopen = ask(ledger, 7, kStart);
  EXPECT_TRUE(reopen.reopen);
  EXPECT_TRUE(ledger.refused(7, reopen.id, kStart));
  EXPECT_EQ(ledger.listeners(7), nullptr);
  EXPECT_TRUE(ledger.expire(kStart + milliseconds(500)).empty());
  EXPECT_FALSE(ask(ledger, 7, kStart).reopen);
}

TEST(PodLedger, news_of_the_engine_do_not_answer_a_request) {
  PodLedger ledger({});
  ledger.want(7);
  const auto request = ask(ledger, 7, kStart);
  EXPECT_TRUE(ledger.answered(7, 0, kListeners));
  EXPECT_EQ(ledger.unanswered(), 1U);
  EXPECT_TRUE(ledger.answered(7, request.id, kListeners));
  EXPECT_TRUE(ledger.refused(7, 0, kStart));
  EXPECT_EQ(ledger.next_expiry(), kStart + milliseconds(500));
  EXPECT_FALSE(ledger.answered(8, 0, kListeners));
}

TEST(PodLedger, asks_nothing_once_it_was_stopped) {
  PodLedger ledger({});
  ledger.want(7);
  ledger.want(8);
  const auto request = ask(ledger, 7, kStart);
  ledger.stop_asking();
  ledger.want(9);
  EXPECT_FALSE(ledger.next_due());
  EXPECT_TRUE(ledger.refused(7, request.id, kStart));
  EXPECT_FALSE(ledger.next_expiry());
}

TEST(PodLedger, a_forgotten_pod_is_neither_due_nor_answered) {
  PodLedger ledger({});
  ledger.want(7);
  const auto request = ask(ledger, 7, kStart);
  ledger.want(7);
  ledger.forget(7);
  EXPECT_EQ(ledger.unanswered(), 0U);
  EXPECT_FALSE(ledger.next_due());
  EXPECT_FALSE(ledger.answered(7, request.id, kListeners));
  EXPECT_TRUE(ledger.expire(kStart + seconds(60)).empty());
}

}  // namespace
}  // namespace sidetrack::engines
