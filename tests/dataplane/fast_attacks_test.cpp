// SPDX-License-Identifier: Apache-2.0
// What an application must not be able to tell, nor to break, when its connection skips TCP: each
// scenario gives the same on plain TCP and past it.
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <span>
#include <vector>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_scenarios.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

using FastAttacks = FastNode;

// Streams `length` bytes of a pattern and reads them, each as far as the other lets it.
std::string stream(const UniqueFd& from, const UniqueFd& to, std::uint64_t length) {
  Pattern pattern(7);
  Digest digest;
  std::vector<char> out(8192);
  std::vector<char> in(65536);
  std::size_t offset = out.size();
  std::uint64_t made = 0;
  const auto deadline = Clock::now() + kPatience;
  while (digest.length() < length && Clock::now() < deadline) {
    if (offset == out.size() && made < length) {
      out.resize(static_cast<std::size_t>(std::min<std::uint64_t>(8192, length - made)));
      pattern.fill(out);
      made += out.size();
      offset = 0;
    }
    if (offset < out.size()) {
      const ssize_t sent =
          ::send(from.get(), out.data() + offset, out.size() - offset, MSG_NOSIGNAL);
      offset += sent > 0 ? static_cast<std::size_t>(sent) : 0;
    }
    // Reads seldom: the window fills and empties again.
    if (digest.length() % 3 == 0 || offset < out.size() || made == length) {
      const ssize_t got = ::recv(to.get(), in.data(), in.size(), 0);
      digest.add(std::span(in.data(), got > 0 ? static_cast<std::size_t>(got) : 0));
    }
  }
  return std::to_string(digest.length()) + " " + digest.hex();
}

TEST_F(FastAttacks, streams_are_whole_on_every_route) {
  for (const Route route : {Route::kV4, Route::kV6, Route::kMapped, Route::kLoopback}) {
    expect_same(
        [](Ends& ends) {
          return stream(ends.client, ends.server, 20'000'000) + " " +
                 stream(ends.server, ends.client, 20'000'000);
        },
        route);
  }
}

TEST_F(FastAttacks, a_reader_that_sleeps_stops_its_sender) {
  expect_same([](Ends& ends) {
    const std::string end = scenarios::fill_a_sleeping_reader(ends, 16384, 64U << 20U);
    EXPECT_EQ(end, "EAGAIN");
    return end;
  });
}

TEST_F(FastAttacks, a_connection_made_anew_does_not_read_the_old_ones_bytes) {  // disc
  expect_same(scenarios::make_anew);
}

// Watches edges and takes a short read for "drained". All bytes are there before it looks: the
// first messages past TCP, what no longer fits there by TCP.
TEST_F(FastAttacks, an_edge_triggered_reader_gets_what_is_in_both_queues) {
  constexpr int kMessages = ST_FAST_MESSAGES + 40;
  expect_same([](Ends& ends) {
    const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
    EXPECT_EQ(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, ends.server.get(), &event), 0);
    const std::string message(100, 'm');
    for (int i = 0; i < kMessages; ++i) {
      EXPECT_EQ(send_text(ends.client, message), "sent");
    }
    EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
    std::vector<char> buffer(65536);
    std::size_t total = 0;
    while (total < kMessages * message.size() &&
           ::epoll_wait(epoll.get(), &event, 1, static_cast<int>(kPatience.count())) == 1) {
      ssize_t got = 0;
      do {
        got = ::recv(ends.server.get(), buffer.data(), buffer.size(), 0);
        total += got > 0 ? static_cast<std::size_t>(got) : 0;
      } while (got == static_cast<ssize_t>(buffer.size()));
    }
    return std::to_string(total);
  });
}

TEST_F(FastAttacks, options_set_late_do_what_they_do_on_tcp) {  // late
  expect_same(scenarios::set_rcvlowat_late, Route::kV4, "fp_rcvlowat");
  expect_same(scenarios::set_peek_off_late, Route::kV4, "fp_peek_off");
  expect_same(scenarios::set_zerocopy_late, Route::kV4, "fp_zerocopy");
}

// fion. The kernel answers for a socket in the map without the bytes of TCP: until the agent has
// taken it out, a moment after the first such call, the answer can be too small, never too large.
TEST_F(FastAttacks, fionread_soon_tells_what_waits) {
  expect_same(scenarios::ask_how_much_waits);
}

TEST_F(FastAttacks, errors_and_ends_are_those_of_tcp) {
  const auto half_close = [](Ends& ends) {
    std::string said = send_text(ends.client, "last");
    EXPECT_EQ(::shutdown(ends.client.get(), SHUT_WR), 0);
    said += send_text(ends.client, "x") + receive_text(ends.server, 9);
    said += receive_text(ends.server, 9) + send_text(ends.server, "answer");
    return said + receive_text(ends.client, 9);
  };
  const auto last_words = [](Ends& ends) {
    std::string said = send_text(ends.client, "last");
    ends.client.reset();
    return said + receive_text(ends.server, 9) + receive_text(ends.server, 9);
  };
  const auto reset = [](Ends& ends) {
    std::string said = send_text(ends.client, "last");
    said += receive_text(ends.server, 9);
    const linger abort{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(ends.client.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
    ends.client.reset();
    said += receive_text(ends.server, 9);
    return said + send_text(ends.server, "x");
  };
  expect_same(half_close);
  expect_same(last_words);
  expect_same(reset);
}

TEST_F(FastAttacks, peek_and_waitall_see_every_byte) {
  expect_same([](Ends& ends) {
    std::string said = send_text(ends.client, "HEA");
    said += receive_text(ends.server, 11, MSG_PEEK) + send_text(ends.client, "DER56789");
    EXPECT_TRUE(eventually(
        kPatience, [&] { return receive_text(ends.server, 11, MSG_PEEK) == "'HEADER56789'"; }));
    return said + receive_text(ends.server, 11, MSG_WAITALL);
  });
}

// What streams go through, both ways, while policy changes and the agent dies and comes back.
TEST_F(FastAttacks, label_flips_and_a_killed_agent_cost_no_byte) {
  const std::string whole = "3000000 " + pattern_digest(7, 3'000'000);
  Ends ends = open_fast();
  for (int round = 0; round < 6; ++round) {
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path",
                                     round % 2 == 0 ? "off" : "auto"));
    if (round % 6 == 0 || round % 6 == 4) {
      EXPECT_TRUE(eventually(kPatience, [&] {
        const std::uint64_t before = sent_by_tcp(ends.client);
        EXPECT_EQ(stream(ends.client, ends.server, 3'000'000), whole);
        return sent_by_tcp(ends.client) - before >= 3'000'000;
      })) << "off, and bytes still skip TCP";
    }
    if (round % 3 == 2) {
      sidetrack_->agent().kill_hard();
    }
    for (int part = 0; part < 10; ++part) {
      ASSERT_EQ(stream(ends.client, ends.server, 3'000'000), whole) << sidetrack_->logs();
      ASSERT_EQ(stream(ends.server, ends.client, 3'000'000), whole) << sidetrack_->logs();
    }
    if (round % 3 == 2) {
      ST_ASSERT_OK(sidetrack_->start_agent());
    }
  }
}

TEST_F(FastAttacks, uninstall_costs_no_byte) {
  const std::string whole = "3000000 " + pattern_digest(7, 3'000'000);
  Ends ends = open_fast();
  EXPECT_EQ(send_text(ends.client, "waits"), "sent");
  (void)sidetrack_->agent().terminate();
  ST_ASSERT_OK(sidetrack_->uninstall());
  EXPECT_EQ(receive_text(ends.server, 9), "'waits'");
  EXPECT_EQ(stream(ends.client, ends.server, 3'000'000), whole);
  EXPECT_EQ(stream(ends.server, ends.client, 3'000'000), whole);
}

// dstate, unkill: a recv() into memory that faults holds the reader's lock for as long as it likes.
TEST_F(FastAttacks, a_reader_that_page_faults_does_not_hold_its_sender) {
  expect_same(scenarios::read_into_faulting_memory);
  expect_same(scenarios::kill_the_sender_of_a_faulting_reader);
}

TEST_F(FastAttacks, the_sentinel_watches_only_while_a_pod_may_use_the_fast_path) {
  const auto watches = [this] { return is_watched(); };
  EXPECT_TRUE(eventually(kPatience, watches));
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "off"));
  EXPECT_TRUE(eventually(kPatience, [&] { return !watches(); }));
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "auto"));
  EXPECT_TRUE(eventually(kPatience, watches)) << sidetrack_->agent().output();
}

}  // namespace
}  // namespace sidetrack::lab
