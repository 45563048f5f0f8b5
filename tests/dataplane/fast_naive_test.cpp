// SPDX-License-Identifier: Apache-2.0
// The checks of the fast path see what they are to see: with a program that has no guards
// (naive/naive.bpf.c) each of them finds a difference from TCP.
//
// Not shown: MPTCP and kTLS, since putting such sockets in crashes some kernels; DNAT, which gives
// the two ends other tuples, so that a program with such keys finds no peer: then nothing is fast,
// and nothing wrong.
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>

#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/memory_group.h"
#include "tests/dataplane/naive_node.h"
#include "tests/dataplane/repaired.h"

namespace sidetrack::lab {
namespace {

constexpr milliseconds kNothingComes{100};

class FastNaive : public NaiveNode {
 protected:
  // Steps of a scenario, with the naive program or none.
  scenarios::Step insert() {
    return [this](Ends& ends) { put_in(ends); };
  }
  scenarios::Step remove_client() {
    return [this](Ends& ends) { take_out(ends.client); };
  }
  static void nothing(Ends&) {}
  // By somebody without rights who has nothing to do with the other pods.
  [[nodiscard]] std::unique_ptr<Process> under_repair(int count) const {
    return connect_under_repair({shop_.client->netns.path(), cgroup_->path()}, Rights::kAnybody,
                                count);
  }
  [[nodiscard]] static bool has(const Pairs& pairs, const Ends& ends) {
    const std::uint64_t cookie = cookie_of(ends.client);
    return std::any_of(pairs.begin(), pairs.end(),
                       [&](const auto& pair) { return pair.second == cookie; });
  }
};

TEST_F(FastNaive, nothing_stops_the_sender) {
  expect_different(
      [](Ends& ends) { return scenarios::fill_a_sleeping_reader(ends, 16384, 64U << 20U); });
  expect_different(scenarios::send_many_short_messages);
}

TEST_F(FastNaive, a_connection_made_anew_reads_the_old_ones_bytes) {
  expect_different(scenarios::make_anew);
}

TEST_F(FastNaive, options_set_late_do_nothing) {
  expect_different(scenarios::set_rcvlowat_late);
  expect_different(scenarios::set_peek_off_late);
  expect_different(scenarios::set_zerocopy_late);
}

TEST_F(FastNaive, a_reader_that_page_faults_holds_its_sender) {
  expect_different(scenarios::read_into_faulting_memory);
  expect_different(scenarios::kill_the_sender_of_a_faulting_reader);
}

TEST_F(FastNaive, bytes_of_tcp_are_overtaken) {
  Ends slow = open(false);
  const std::string expected = scenarios::send_behind_unread_bytes(slow, nothing);
  Ends fast = open(false);
  EXPECT_NE(scenarios::send_behind_unread_bytes(fast, insert()), expected);
}

// The thread is held only where the machine has another one to run: an attack may miss.
TEST_F(FastNaive, a_receive_that_has_begun_on_tcp_reads_what_came_later_first) {
  // A call that puts a socket in takes its lock.
  const auto put_in_unlocked = [this](Ends& ends, HeldReceive& early) {
    early.unlock();
    put_in(ends);
  };
  EXPECT_TRUE(eventually(kPatience, [&] {
    Ends fast = open(false);
    return scenarios::receive_in_flight(fast, put_in_unlocked, remove_client()) ==
           "sentsentsecondfirst ";
  }));
}

TEST_F(FastNaive, a_thread_that_sleeps_in_receive_sleeps_on) {
  Ends slow = open(false, Route::kV4, Blocking::kYes);
  const std::string expected = scenarios::sleep_in_receive(slow, nothing);
  Ends fast = open(false, Route::kV4, Blocking::kYes);
  EXPECT_NE(scenarios::sleep_in_receive(fast, insert()), expected);
}

TEST_F(FastNaive, a_peek_does_not_see_what_came_after_a_switch) {
  Ends slow = open(false);
  const std::string expected = scenarios::peek_across_a_switch(slow, nothing);
  Ends fast = open_naive();
  EXPECT_NE(scenarios::peek_across_a_switch(fast, remove_client()), expected);
}

TEST_F(FastNaive, a_blocking_receive_returns_before_there_is_anything) {
  Ends slow = open(false, Route::kV4, Blocking::kYes);
  EXPECT_EQ(scenarios::wait_for_an_answer(slow, nothing), "'answer'");
  Ends fast = open_naive(Route::kV4, Blocking::kYes);
  EXPECT_EQ(scenarios::wait_for_an_answer(fast, nothing), "EAGAIN");
}

TEST_F(FastNaive, fionread_does_not_count_bytes_of_tcp) {
  const auto scenario = [](Ends& ends, const scenarios::Step& past_tcp) {
    EXPECT_EQ(send_text(ends.client, "12345"), "sent");
    EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
    past_tcp(ends);
    int waiting = -1;
    EXPECT_EQ(::ioctl(ends.server.get(), FIONREAD, &waiting), 0);
    return waiting;
  };
  Ends slow = open(false);
  EXPECT_EQ(scenario(slow, nothing), 5);
  Ends fast = open(false);
  EXPECT_EQ(scenario(fast, insert()), 0);
}

TEST_F(FastNaive, splice_sees_nothing) {
  expect_different([](Ends& ends) {
    EXPECT_EQ(send_text(ends.client, "12345"), "sent");
    EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'1'");
    return scenarios::splice_some(ends.server);
  });
}

// Not a part of the tier that must run wherever BPF works: Debian 12 has cgroup2 only.
class FastNaiveMemory : public FastNaive {};

// TCP waits where redirecting fails.
TEST_F(FastNaiveMemory, a_reader_whose_memory_is_limited_fails_its_sender) {  // memcg
  if (!MemoryGroup::is_possible()) {
    GTEST_SKIP() << "no memory controller of cgroup v1";
  }
  MemoryGroup memory(1U << 20U);
  memory.add(plain_.server_shell->process().pid());
  const auto fill = [](Ends ends) {
    return scenarios::fill_a_sleeping_reader(ends, 8192, 64U << 20U);
  };
  EXPECT_EQ(fill(open(false)), "EAGAIN");
  EXPECT_EQ(fill(open_naive()), "ENOMEM");
}

// What was redirected fills the reader's buffer: TCP drops what comes behind, and its timer
// doubles.
TEST_F(FastNaive, bytes_of_tcp_behind_a_full_buffer_come_late) {  // stall
  Ends slow = open(false);
  EXPECT_EQ(scenarios::read_behind_a_full_buffer(slow, nothing, nothing), "soon");
  Ends fast = open(false);
  EXPECT_EQ(scenarios::read_behind_a_full_buffer(fast, insert(), remove_client()), "late");
}

TEST_F(FastNaive, whoever_chooses_sequence_numbers_is_noted_under_those_of_others) {  // repair
  std::unique_ptr<Process> attacker;
  const auto pairs = noted([&] { attacker = under_repair(1); });
  EXPECT_TRUE(pairs.contains({kChosenToSend, kChosenToExpect}));
}

TEST_F(FastNaive, connections_under_repair_leave_no_room_for_others) {  // fill
  std::unique_ptr<Process> attacker;
  Ends early;
  Ends late;
  const auto pairs = noted([&] {
    early = open(false);
    attacker = under_repair(100);
    late = open(false);
  });
  EXPECT_TRUE(has(pairs, early));
  EXPECT_FALSE(has(pairs, late));
}

// 127.0.0.1 is in every pod: two connections with the same addresses and ports. Of the first the
// server's end is closed already.
TEST_F(FastNaive, a_connection_of_another_pod_gets_the_bytes) {
  const Way way{
      .listen_on = "127.0.0.1", .address = "127.0.0.1", .port = 7700, .bind = "127.0.0.1/7701"};
  Ends first;
  Ends second;
  watch([&] {
    first = join(*plain_.client_shell, *plain_.client_shell, way);
    first.server.reset();
    EXPECT_EQ(receive_text(first.client, 1), "EOF");
    second = join(*plain_.server_shell, *plain_.server_shell, way);
  });
  EXPECT_EQ(send_text(first.client, "secret"), "sent");
  EXPECT_EQ(receive_text(second.server, 99, 0, kNothingComes), "'secret'");
}

}  // namespace
}  // namespace sidetrack::lab
