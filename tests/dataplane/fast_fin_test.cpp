// SPDX-License-Identifier: Apache-2.0
// The end of a connection is not known to a reader before it has read what skipped TCP, if bytes of
// TCP are behind that: many applications take a short read for the last one then
// (docs/adr/0021-a-fin-waits.md).
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <iterator>
#include <vector>

#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/shared_fast_node.h"

namespace sidetrack::lab {
namespace {

using scenarios::fill_both_queues;
using scenarios::kMoreThanWait;
using scenarios::read_until_end_is_known;

class FastFin : public SharedFastNode {
 protected:
  [[nodiscard]] static bool knows_of_end(const UniqueFd& reader, milliseconds within = {}) {
    pollfd wanted{reader.get(), POLLRDHUP, 0};
    return ::poll(&wanted, 1, static_cast<int>(within.count())) == 1;
  }
  static std::size_t read_all_that_waits(const UniqueFd& reader) {
    std::array<char, 16384> bytes{};
    std::size_t read = 0;
    ssize_t got = 0;
    while ((got = ::recv(reader.get(), bytes.data(), bytes.size(), 0)) > 0) {
      read += static_cast<std::size_t>(got);
    }
    return read;
  }
  [[nodiscard]] bool is_attached() const {
    return std::filesystem::exists(sidetrack_->pin_dir() + "/v1/links/st_hold_fin");
  }
  const std::string all_ = std::to_string(kMoreThanWait) + " end";
};

TEST_F(FastFin, a_reader_that_ends_with_a_short_read_gets_all) {
  const auto run = [](Ends& ends, bool client_sends) {
    UniqueFd& sender = client_sends ? ends.client : ends.server;
    fill_both_queues(sender);
    sender.reset();
    return read_until_end_is_known(client_sends ? ends.server : ends.client);
  };
  std::vector<Ends> slow, fast;
  for (const Route route : {Route::kV4, Route::kV6, Route::kMapped, Route::kLoopback}) {
    for (int i = 0; i < 2; ++i) {
      slow.push_back(open(false, route));
      fast.push_back(open(true, route));
    }
  }
  std::vector<Ends*> all;
  std::transform(fast.begin(), fast.end(), std::back_inserter(all), [](Ends& one) { return &one; });
  make_fast(all);
  for (std::size_t i = 0; i < fast.size(); ++i) {
    EXPECT_EQ(run(slow[i], i % 2 == 0), all_) << i;
    EXPECT_EQ(run(fast[i], i % 2 == 0), all_) << i;
  }
}

// Where the reader has ended its own side before, poll() says POLLHUP.
TEST_F(FastFin, so_does_one_that_has_ended_its_own_side) {
  const auto run = [&](Ends ends) {
    fill_both_queues(ends.client);
    ::shutdown(ends.server.get(), SHUT_WR);
    EXPECT_EQ(receive_text(ends.client, 1), "EOF");
    ends.client.reset();
    return read_until_end_is_known(ends.server);
  };
  EXPECT_EQ(run(open(false)), all_);
  EXPECT_EQ(run(open_fast()), all_);
}

TEST_F(FastFin, an_answer_follows_a_half_close) {
  const auto run = [&](Ends ends) {
    fill_both_queues(ends.client);
    ::shutdown(ends.client.get(), SHUT_WR);
    std::string said = send_text(ends.client, "x") + " ";
    said += read_until_end_is_known(ends.server) + " ";
    said += send_text(ends.server, "answer") + " ";
    return said + receive_text(ends.client, 10);
  };
  const std::string expected = "EPIPE " + all_ + " sent 'answer'";
  EXPECT_EQ(run(open(false)), expected);
  EXPECT_EQ(run(open_fast()), expected);
}

// By its timer TCP would try again 1.6 seconds later.
TEST_F(FastFin, the_end_comes_soon_after_a_reader_that_is_late) {
  Ends ends = open_fast();
  fill_both_queues(ends.client);
  ends.client.reset();
  EXPECT_FALSE(knows_of_end(ends.server, milliseconds(1500)));
  EXPECT_EQ(read_all_that_waits(ends.server), kMoreThanWait);
  EXPECT_TRUE(knows_of_end(ends.server, milliseconds(500)));
  EXPECT_EQ(receive_text(ends.server, 1), "EOF");
}

TEST_F(FastFin, the_end_comes_without_an_agent_too) {
  Ends ends = open_fast();
  fill_both_queues(ends.client);
  stop_agent();
  ends.client.reset();
  EXPECT_FALSE(knows_of_end(ends.server, milliseconds(100)));
  EXPECT_EQ(read_all_that_waits(ends.server), kMoreThanWait);
  EXPECT_TRUE(knows_of_end(ends.server, kPatience));
  wake_agent();
}

// TCP gives up a closed socket whose FIN is never answered.
TEST_F(FastFin, waits_no_longer_than_tcp_is_patient) {
  Ends ends = open_fast();
  fill_both_queues(ends.client);
  set_option(ends.client, IPPROTO_TCP, TCP_USER_TIMEOUT, 1000);
  ends.client.reset();
  EXPECT_FALSE(knows_of_end(ends.server, milliseconds(400)));
  EXPECT_TRUE(knows_of_end(ends.server, milliseconds(2000)));

  spoil();  // the setting stays
  ST_ASSERT_OK(shop_.client->netns.write_sysctl("ipv4/tcp_orphan_retries", "2"));
  Ends few = open_fast();
  fill_both_queues(few.client);
  few.client.reset();
  EXPECT_FALSE(knows_of_end(few.server, milliseconds(250)));
  EXPECT_TRUE(knows_of_end(few.server, milliseconds(2000)));
  EXPECT_EQ(read_all_that_waits(few.server), kMoreThanWait);

  ST_ASSERT_OK(shop_.client->netns.write_sysctl("ipv4/tcp_orphan_retries", "0"));
  ST_ASSERT_OK(shop_.client->netns.write_sysctl("ipv4/tcp_retries2", "2"));
  Ends half = open_fast();
  fill_both_queues(half.client);
  ::shutdown(half.client.get(), SHUT_WR);
  EXPECT_FALSE(knows_of_end(half.server, milliseconds(250)));
  EXPECT_TRUE(knows_of_end(half.server, milliseconds(2000)));
}

// Else nobody would acknowledge them: TCP takes the packet that is kept back for the one that did.
TEST_F(FastFin, what_comes_meanwhile_is_acknowledged) {
  Ends ends = open_fast();
  fill_both_queues(ends.client);
  ::shutdown(ends.client.get(), SHUT_WR);
  EXPECT_FALSE(knows_of_end(ends.server, milliseconds(100)));
  EXPECT_EQ(send_text(ends.server, "answer"), "sent");
  EXPECT_TRUE(eventually(milliseconds(150), [&] { return is_acknowledged(ends.server); }));
  EXPECT_EQ(receive_text(ends.client, 10), "'answer'");
  EXPECT_EQ(read_all_that_waits(ends.server), kMoreThanWait);
}

// What TCP has not sent yet goes with the FIN.
TEST_F(FastFin, bytes_that_go_with_the_end_come_too) {
  const auto run = [&](Ends ends) {
    for (int i = 0; i < kMoreThanWait; ++i) {
      EXPECT_EQ(send_text(ends.client, "m"), "sent");
    }
    ends.client.reset();
    return read_until_end_is_known(ends.server);
  };
  EXPECT_EQ(run(open(false)), all_);
  EXPECT_EQ(run(open_fast()), all_);
}

// A sender that is taken out, as it was made blocking, leaves bytes past TCP behind.
TEST_F(FastFin, waits_for_a_sender_that_is_not_adopted_any_more) {
  Ends ends = open_fast();
  fill_both_queues(ends.client);
  ::fcntl(ends.client.get(), F_SETFL, ::fcntl(ends.client.get(), F_GETFL) & ~O_NONBLOCK);
  ASSERT_TRUE(eventually(kPatience, [&] { return !adopted(ends.client); }));
  ends.client.reset();
  EXPECT_EQ(read_until_end_is_known(ends.server), all_);
}

// Of a socket that has nothing past TCP, and of one whose reader has read that, nothing waits.
TEST_F(FastFin, no_other_end_waits) {
  Ends fast = open_fast();
  const auto waited = [&] {
    const auto counts = KernelView(sidetrack_->pin_dir()).fast_counts();
    EXPECT_TRUE(counts);
    return counts && counts->refused.contains("fp_fin_waits") ? counts->refused.at("fp_fin_waits")
                                                              : 0;
  };
  const auto before = waited();
  EXPECT_EQ(send_text(fast.client, "past TCP"), "sent");
  fast.client.reset();
  EXPECT_TRUE(knows_of_end(fast.server, kPatience));
  EXPECT_EQ(receive_text(fast.server, 20), "'past TCP'");
  Ends behind = open_fast();
  fill_both_queues(behind.client);
  EXPECT_EQ(receive_text(behind.server, 2 * kMoreThanWait).size(), ST_FAST_MESSAGES + 2);
  behind.client.reset();
  EXPECT_TRUE(knows_of_end(behind.server, kPatience));
  Ends read = open_fast();
  fill_both_queues(read.client);
  EXPECT_EQ(read_all_that_waits(read.server), kMoreThanWait);
  read.client.reset();
  EXPECT_TRUE(knows_of_end(read.server, kPatience));
  EXPECT_EQ(waited(), before);
  Ends held = open_fast();
  fill_both_queues(held.client);
  held.client.reset();
  EXPECT_EQ(read_all_that_waits(held.server), kMoreThanWait);
  EXPECT_EQ(waited(), before + 1);
}

// Nobody pays for it where nothing is adopted.
TEST_F(FastFin, is_attached_while_sockets_are_adopted) {
  spoil();
  Ends ends = open_fast();
  EXPECT_TRUE(is_attached());
  set_fast_path("off");
  EXPECT_TRUE(eventually(2 * kPatience, [&] { return !is_attached(); })) << sidetrack_->logs();
}

}  // namespace
}  // namespace sidetrack::lab
