// SPDX-License-Identifier: Apache-2.0
// Attacks on the moments at which the way of bytes changes: when a connection is put on the fast
// path, and when a message goes by TCP that has others before or behind it past TCP.
#include <poll.h>
#include <sys/socket.h>

#include <vector>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/shared_fast_node.h"

namespace sidetrack::lab {
namespace {

class FastMoments : public SharedFastNode {
 protected:
  // A sender with SO_ZEROCOPY goes by TCP, from one message to the next.
  static void by_tcp(const Ends& ends) { set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1); }
  static void past_tcp(const Ends& ends) { set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 0); }
};

TEST_F(FastMoments, bytes_of_tcp_are_not_overtaken) {
  expect_same(
      [](Ends& ends) {
        by_tcp(ends);
        return scenarios::send_behind_unread_bytes(ends, past_tcp);
      },
      Route::kV4, "fp_unread");
}

// inflight: the recv() waits for the socket's lock while both ends are put in.
TEST_F(FastMoments, a_receive_that_has_begun_on_tcp_reads_in_order) {
  const auto unlock = [](Ends&, HeldReceive& early) { early.unlock(); };
  const auto put_in = [this](Ends& ends, HeldReceive& early) {
    wake_agent();
    wait_until_put_in(ends);
    early.unlock();
  };
  std::string said;
  EXPECT_TRUE(eventually(kPatience, [&] {
    Ends slow = open(false);
    return (said = scenarios::receive_in_flight(slow, unlock, by_tcp)) != "missed";
  }));
  EXPECT_EQ(said, "sentsentfirst second");
  EXPECT_TRUE(eventually(kPatience, [&] {
    stop_agent();
    Ends fast = open(true);
    use(fast);
    return (said = scenarios::receive_in_flight(fast, put_in, by_tcp)) != "missed";
  }));
  EXPECT_EQ(said, "sentsentfirst second");
}

TEST_F(FastMoments, nothing_skips_tcp_before_a_second_has_passed_and_its_reader_has_read) {
  stop_agent();
  Ends ends = open(true);
  use(ends);
  const auto skips = [&](const UniqueFd& from) {
    const std::uint64_t before = sent_by_tcp(from);
    EXPECT_EQ(send_text(from, "x"), "sent");
    return sent_by_tcp(from) == before;
  };
  const auto begin = Clock::now();
  wake_agent();
  // The client reads, the server does not.
  EXPECT_TRUE(eventually(kPatience, [&] {
    EXPECT_FALSE(skips(ends.client));
    const bool fast = skips(ends.server);
    EXPECT_EQ(receive_text(ends.client, 1), "'x'");
    return fast;
  }));
  EXPECT_GE(Clock::now() - begin, std::chrono::nanoseconds(ST_FAST_ARM_NS));
  EXPECT_FALSE(skips(ends.client));
  EXPECT_NE(receive_text(ends.server, 10'000), "EAGAIN");
  EXPECT_TRUE(skips(ends.client));
}

// What waits past TCP must not close TCP's window: nothing would open it again but TCP's timers.
TEST_F(FastMoments, bytes_of_tcp_behind_a_full_window_come_as_soon_as_it_is_read) {
  constexpr std::size_t kPart = 65536;
  constexpr int kPast = 12;
  constexpr int kBehind = 4;
  Ends ends = open_fast();
  const std::string part(kPart, 'p');
  const std::uint64_t by_tcp_before = sent_by_tcp(ends.client);
  for (int i = 0; i < kPast; ++i) {
    EXPECT_EQ(send_text(ends.client, part), "sent");
  }
  EXPECT_EQ(sent_by_tcp(ends.client), by_tcp_before);
  by_tcp(ends);
  std::size_t accepted = kPast * kPart;
  for (int i = 0; i < kBehind; ++i) {
    const ssize_t count = ::send(ends.client.get(), part.data(), part.size(), MSG_NOSIGNAL);
    accepted += count > 0 ? static_cast<std::size_t>(count) : 0;
  }
  EXPECT_GT(accepted, kPast * kPart);
  const auto begin = Clock::now();
  EXPECT_EQ(scenarios::receive_all(ends.server, accepted).size(), accepted);
  EXPECT_LT(Clock::now() - begin, scaled(milliseconds(100)));
}

// The kernel keeps the verdict of a message that TCP took in part for the next one.
TEST_F(FastMoments, one_message_is_sent_unasked_after_one_that_tcp_took_in_part) {
  const std::string much(std::size_t{16} << 20U, 'm');
  const auto refused = [this] {
    std::uint64_t sum = 0;
    const FastCounts counts = KernelView(sidetrack_->pin_dir()).fast_counts().value();
    for (const auto& [reason, count] : counts.refused) {
      sum += count;
    }
    return sum;
  };
  Ends ends = open_fast();
  const auto is_unasked = [&] {
    const std::uint64_t before = refused();
    return !skips_tcp(ends.client, ends.server) && refused() == before;
  };
  int unasked = 0;
  for (int round = 0; round < 3; ++round) {
    by_tcp(ends);
    const ssize_t taken = ::send(ends.client.get(), much.data(), much.size(), MSG_NOSIGNAL);
    ASSERT_GT(taken, 0);
    ASSERT_LT(static_cast<std::size_t>(taken), much.size());
    const auto wanted = static_cast<std::size_t>(taken);
    ASSERT_EQ(scenarios::receive_all(ends.server, wanted).size(), wanted);
    past_tcp(ends);
    unasked += is_unasked() ? 1 : 0;
    EXPECT_FALSE(is_unasked()) << "one more";
  }
  EXPECT_GT(unasked, 0) << "the kernel keeps no verdict any more";
}

TEST_F(FastMoments, bytes_of_tcp_behind_a_full_buffer_come_as_soon_as_it_is_read) {  // stall
  expect_same(
      [](Ends& ends) {
        by_tcp(ends);
        return scenarios::read_behind_a_full_buffer(ends, past_tcp, by_tcp);
      },
      Route::kV4, "fp_window");
}

// TCP has promised to take what it was used to take before others came past it: a segment that
// finds no room is dropped, and comes again by a timer.
TEST_F(FastMoments, what_tcp_has_promised_to_take_finds_room_behind_what_skipped_it) {
  const std::string piece(16384, 'p');
  const auto fill = [&](const Ends& ends) {
    std::size_t sent = 0;
    ssize_t count = 0;
    while ((count = ::send(ends.client.get(), piece.data(), piece.size(), MSG_NOSIGNAL)) > 0) {
      sent += static_cast<std::size_t>(count);
    }
    return sent;
  };
  std::vector<char> space(1U << 20U);
  const auto read_soon = [&](const Ends& ends, std::size_t count) {
    for (std::size_t read = 0; read < count;) {
      pollfd wanted{ends.server.get(), POLLIN, 0};
      const int soon = static_cast<int>(scaled(milliseconds(100)).count());
      ASSERT_EQ(::poll(&wanted, 1, soon), 1) << count - read << " of " << count << " are missing";
      const ssize_t got = ::recv(ends.server.get(), space.data(), space.size(), 0);
      ASSERT_GT(got, 0);
      read += static_cast<std::size_t>(got);
    }
  };
  for (const int buffer : {0, 32768, 131072, 1048576}) {  // 0: as the kernel makes it
    SCOPED_TRACE(buffer);
    Ends ends = open(true);
    if (buffer != 0) {
      set_option(ends.server, SOL_SOCKET, SO_RCVBUF, buffer);
    }
    use(ends);
    wait_until_put_in(ends);
    std::uint64_t skipped = 0;
    for (const auto end = Clock::now() + 2 * std::chrono::nanoseconds(ST_FAST_ARM_NS);
         Clock::now() < end && !HasFailure();) {
      by_tcp(ends);
      read_soon(ends, fill(ends));  // TCP gets used to much
      past_tcp(ends);
      const std::uint64_t before = sent_by_tcp(ends.client);
      const std::size_t sent = fill(ends);
      skipped += sent - (sent_by_tcp(ends.client) - before);
      read_soon(ends, sent);
    }
    if (buffer == 0) {
      EXPECT_GT(skipped, 0U);
    }
  }
}

TEST_F(FastMoments, a_thread_that_sleeps_in_receive_is_woken) {  // sleeper
  Ends slow = open(false, Route::kV4, Blocking::kYes);
  const std::string expected = scenarios::sleep_in_receive(slow, [](Ends&) {});
  stop_agent();
  Ends fast = open(true, Route::kV4, Blocking::kYes);
  const auto put_in = [this](Ends& ends) {
    // The server sends: its reader sleeps on.
    for (int i = 0; i < 8; ++i) {
      pass(ends.server, ends.client, "y");
    }
    wake_agent();
    EXPECT_TRUE(eventually(kPatience, [this] {
      const auto pod = sidetrack_->pod("shop/server");
      return pod && pod->value("fast_path_reason", "") == "fp_sleeping_reader";
    })) << sidetrack_->logs();
  };
  EXPECT_EQ(scenarios::sleep_in_receive(fast, put_in), expected);
  EXPECT_EQ(expected, "75 woke");
}

TEST_F(FastMoments, a_peek_across_a_change_of_policy_sees_all) {  // peek
  Ends slow = open(false);
  const std::string expected = scenarios::peek_across_a_switch(slow, [](Ends&) {});
  Ends fast = open_fast();
  const auto switch_off = [this](Ends&) {
    set_fast_path("off");
    wait_until_adopted(0);  // and the agent has tried to take them out
  };
  EXPECT_EQ(scenarios::peek_across_a_switch(fast, switch_off), expected);
  set_fast_path("auto");
  EXPECT_NE(expected.find(" peeked "), std::string::npos) << expected;
}

}  // namespace
}  // namespace sidetrack::lab
