// SPDX-License-Identifier: Apache-2.0
// What the engine tells the kernel of its relays: the numbers in st_slots are compared with what
// the kernel says that the far socket took.
#include <sys/socket.h>

#include <set>
#include <thread>
#include <vector>

#include "tests/unit/engine_fake_slots.h"

namespace sidetrack::engine {
namespace {

constexpr std::uint16_t kCell = 3;
constexpr std::size_t kCellLinks = ST_LINKS_PER_ENGINE - 1;

class EngineLinks : public EngineLab {
 protected:
  void SetUp() override {
    EngineLab::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    server_address_ = v4("127.0.0.1", 0);
    server_listener_ = listen_at(server_address_);
    attach(slots_);
  }

  struct Pair {
    UniqueFd client;
    UniqueFd server;
  };
  Pair connect_pair() {
    Pair pair;
    pair.client = client_of(server_address_);
    pair.server = accept_from(server_listener_);
    return pair;
  }

  void attach(const FakeSlots& slots, std::uint16_t cell = kCell) {
    const auto attached = engine_->links().attach(slots.fd, cell);
    ASSERT_TRUE(attached) << attached.error().message;
  }

  static void ping_pong(const Pair& pair, int rounds) {
    for (int i = 0; i < rounds; ++i) {
      send_text(pair.client, "ping");
      ASSERT_EQ(read_all(pair.server, 4).text, "ping");
      send_text(pair.server, "pong!");
      ASSERT_EQ(read_all(pair.client, 5).text, "pong!");
    }
  }

  // The one link that is news.
  LinkNews one_news() {
    std::vector<LinkNews> news;
    EXPECT_TRUE(eventually([&] {
      const auto more = engine_->links().take_news();
      news.insert(news.end(), more.begin(), more.end());
      return !news.empty();
    }));
    EXPECT_EQ(news.size(), 1U);
    return news.empty() ? LinkNews{} : news.front();
  }

  bool has(std::uint32_t index, std::uint64_t from_client, std::uint64_t from_server) {
    return eventually([&] {
      return slots_.get(index, kClient) == from_client && slots_.get(index, kServer) == from_server;
    });
  }

  FakeSlots slots_;
  SocketAddress server_address_;
  UniqueFd server_listener_;
};

TEST_F(EngineLinks, a_connection_that_lives_gets_one_and_a_short_one_does_not) {
  const Pair pair = connect_pair();
  ping_pong(pair, 3);
  EXPECT_TRUE(engine_->links().take_news().empty());
  ping_pong(pair, 17);
  const LinkNews news = one_news();
  EXPECT_EQ(news.index / ST_LINKS_PER_ENGINE, kCell);
  EXPECT_EQ(news.client_cookie, cookie_of(other_end_of(pair.client.get())));
  EXPECT_EQ(news.server_cookie, cookie_of(other_end_of(pair.server.get())));
  EXPECT_TRUE(has(news.index, 80, 100));
}

TEST_F(EngineLinks, one_large_message_is_life_enough) {
  const Pair pair = connect_pair();
  const std::string bulk(65536, 'x');
  send_text(pair.client, bulk);
  EXPECT_EQ(read_all(pair.server, bulk.size()).text.size(), bulk.size());
  EXPECT_TRUE(has(one_news().index, bulk.size(), 0));
}

TEST_F(EngineLinks, begins_with_what_went_before_in_a_direction_that_is_silent_now) {
  const Pair pair = connect_pair();
  send_text(pair.server, "hello");
  EXPECT_EQ(read_all(pair.client, 5).text, "hello");
  const std::string bulk(65536, 'x');
  send_text(pair.client, bulk);
  EXPECT_EQ(read_all(pair.server, bulk.size()).text.size(), bulk.size());
  EXPECT_TRUE(has(one_news().index, bulk.size(), 5));
}

TEST_F(EngineLinks, counts_what_the_far_socket_took_not_what_was_read) {
  const Pair pair = connect_pair();
  ping_pong(pair, 10);
  const LinkNews news = one_news();
  const int leg = other_end_of(pair.server.get());
  const std::string piece(10'000, 'x');
  std::uint64_t offered = 40;
  ASSERT_TRUE(eventually([&] {  // until nothing more goes in, and something waits in the engine
    ssize_t sent = 0;
    while ((sent = ::send(pair.client.get(), piece.data(), piece.size(), MSG_DONTWAIT)) > 0) {
      offered += static_cast<std::uint64_t>(sent);
    }
    return engine_->totals().buffered > 0;
  }));
  ASSERT_TRUE(eventually([&] { return slots_.get(news.index, kClient) == taken_by(leg); }));
  const std::uint64_t blocked_at = slots_.get(news.index, kClient);
  EXPECT_LT(blocked_at, offered);
  EXPECT_EQ(engine_->totals().bytes_out, blocked_at + engine_->totals().buffered);
  // The server reads: what waited is counted as it leaves, once.
  EXPECT_EQ(read_all(pair.server, offered - 40).text.size(), offered - 40);
  EXPECT_TRUE(has(news.index, offered, 50));
  EXPECT_EQ(taken_by(leg), offered);
}

TEST_F(EngineLinks, is_never_ahead_of_the_far_socket) {
  const Pair pair = connect_pair();
  ping_pong(pair, 10);
  const LinkNews news = one_news();
  const int leg = other_end_of(pair.server.get());
  std::atomic<bool> done{false};
  std::thread sender([&] {
    const std::string piece(30'011, 'x');
    for (int i = 0; i < 2000; ++i) {
      send_text(pair.client, piece);
    }
    done = true;
  });
  std::thread reader([&] { (void)read_all(pair.server, 2000U * 30'011U); });
  std::uint64_t looks = 0;
  std::uint64_t ahead = 0;
  while (!done) {
    const std::uint64_t counted = slots_.get(news.index, kClient);
    ahead += counted > taken_by(leg) ? 1 : 0;
    ++looks;
  }
  sender.join();
  reader.join();
  EXPECT_GT(looks, 100U);
  EXPECT_EQ(ahead, 0U);
  EXPECT_TRUE(has(news.index, 40U + 2000U * 30'011U, 50));
}

TEST_F(EngineLinks, counts_on_after_a_half_close) {
  const Pair pair = connect_pair();
  ping_pong(pair, 10);
  const LinkNews news = one_news();
  ::shutdown(pair.client.get(), SHUT_WR);
  EXPECT_TRUE(read_all(pair.server).eof);
  const std::string answer(3'000'000, 'y');
  std::thread sender([&] { send_text(pair.server, answer); });
  EXPECT_EQ(read_all(pair.client, answer.size()).text.size(), answer.size());
  sender.join();
  EXPECT_TRUE(has(news.index, 40, 50 + answer.size()));
}

TEST_F(EngineLinks, a_half_closed_connection_gets_none) {
  const Pair pair = connect_pair();
  ::shutdown(pair.client.get(), SHUT_WR);
  EXPECT_TRUE(read_all(pair.server).eof);
  const std::string answer(300'000, 'y');
  send_text(pair.server, answer);
  EXPECT_EQ(read_all(pair.client, answer.size()).text.size(), answer.size());
  EXPECT_TRUE(engine_->links().take_news().empty());
}

class EngineLastLink : public EngineLinks {
 protected:
  // Takes all links but one.
  void SetUp() override {
    EngineLinks::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    const std::uint64_t none[2] = {0, 0};
    for (std::size_t i = 0; i + 1 < kCellLinks; ++i) {
      held_.push_back(engine_->links().open(server_listener_.get(), server_listener_.get(), none));
      ASSERT_NE(held_.back(), nullptr);
    }
    ASSERT_EQ(engine_->links().take_news().size(), kCellLinks - 1);
  }
  void TearDown() override {
    for (auto& link : held_) {
      engine_->links().close(std::move(link));
    }
  }
  std::vector<std::unique_ptr<LiveLink>> held_;
};

TEST_F(EngineLastLink, is_used_again_when_both_sockets_are_closed) {
  Pair first = connect_pair();
  ping_pong(first, 10);
  const std::uint32_t index = one_news().index;
  // Half closed, then the other application gone with the engine still holding both sockets.
  ::shutdown(first.client.get(), SHUT_WR);
  EXPECT_TRUE(read_all(first.server).eof);
  const Pair second = connect_pair();
  ping_pong(second, 10);
  EXPECT_TRUE(engine_->links().take_news().empty());
  first.server.reset();
  EXPECT_TRUE(read_all(first.client).eof);
  EXPECT_TRUE(eventually([&] { return engine_->totals().connections == 1; }));
  const Pair third = connect_pair();
  ping_pong(third, 10);
  EXPECT_EQ(one_news().index, index);
  EXPECT_TRUE(has(index, 40, 50));  // nothing of the first connection
}

TEST_F(EngineLastLink, is_freed_by_a_reset) {
  Pair first = connect_pair();
  ping_pong(first, 10);
  const std::uint32_t index = one_news().index;
  abort_socket(first.client);
  EXPECT_EQ(read_all(first.server).error_number, ECONNRESET);
  EXPECT_TRUE(eventually([&] { return engine_->totals().connections == 0; }));
  const Pair second = connect_pair();
  ping_pong(second, 10);
  EXPECT_EQ(one_news().index, index);
}

TEST_F(EngineLastLink, one_that_found_none_asks_again) {
  const Pair first = connect_pair();
  ping_pong(first, 10);
  const std::uint32_t index = one_news().index;
  const Pair second = connect_pair();
  ping_pong(second, 10);
  EXPECT_TRUE(engine_->links().take_news().empty());
  engine_->links().close(std::move(held_.back()));
  held_.pop_back();
  ping_pong(second, 130);
  EXPECT_NE(one_news().index, index);
}

TEST_F(EngineLinks, live_ones_are_news_again_when_the_agent_is_back) {
  const Pair pair = connect_pair();
  ping_pong(pair, 10);
  const LinkNews news = one_news();
  engine_->links().detach();
  const Pair other = connect_pair();
  ping_pong(other, 20);
  ping_pong(pair, 20);
  EXPECT_TRUE(engine_->links().take_news().empty());
  EXPECT_TRUE(has(news.index, 120, 150));
  attach(slots_);
  EXPECT_EQ(one_news(), news);
  ping_pong(other, 140);
  EXPECT_NE(one_news().index, news.index);
}

TEST_F(EngineLinks, another_map_knows_nothing_of_the_links_of_the_first) {
  const Pair pair = connect_pair();
  ping_pong(pair, 10);
  const LinkNews before = one_news();
  const FakeSlots others;
  attach(others);
  EXPECT_TRUE(engine_->links().take_news().empty());
  const Pair second = connect_pair();
  ping_pong(second, 10);
  const LinkNews after = one_news();
  ping_pong(pair, 5);
  EXPECT_TRUE(has(before.index, 60, 75));
  EXPECT_TRUE(eventually([&] { return others.get(after.index, kClient) == 40; }));
  // The first map comes back: its index is still taken.
  attach(slots_);
  EXPECT_EQ(one_news(), before);
  const Pair third = connect_pair();
  ping_pong(third, 10);
  EXPECT_NE(one_news().index, before.index);
}

TEST_F(EngineLinks, another_cell_is_another_range) {
  const Pair pair = connect_pair();
  ping_pong(pair, 10);
  const LinkNews before = one_news();
  attach(slots_, kCell + 1);
  EXPECT_TRUE(engine_->links().take_news().empty());
  const Pair second = connect_pair();
  ping_pong(second, 10);
  EXPECT_EQ(one_news().index / ST_LINKS_PER_ENGINE, kCell + 1U);
  ping_pong(pair, 5);
  EXPECT_TRUE(has(before.index, 60, 75));
}

TEST_F(EngineLinks, a_cell_beyond_the_map_is_refused) {
  EXPECT_EQ(engine_->links().attach(slots_.fd, ST_MAX_ENGINES).error().code, ErrorCode::kInvalid);
}

TEST_F(EngineLinks, many_at_once_have_links_of_their_own) {
  constexpr int kPairs = 64;
  std::vector<Pair> pairs;
  std::vector<std::thread> threads;
  for (int i = 0; i < kPairs; ++i) {
    pairs.push_back(connect_pair());
  }
  for (int i = 0; i < kPairs; ++i) {
    threads.emplace_back(
        [&pair = pairs[static_cast<std::size_t>(i)], i] { ping_pong(pair, 20 + i); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const std::vector<LinkNews> news = engine_->links().take_news();
  ASSERT_EQ(news.size(), static_cast<std::size_t>(kPairs));
  std::set<std::uint32_t> indices;
  std::multiset<std::uint64_t> wanted;
  for (int i = 0; i < kPairs; ++i) {
    indices.insert(news[static_cast<std::size_t>(i)].index);
    wanted.insert(static_cast<std::uint64_t>(20 + i));
  }
  EXPECT_EQ(indices.size(), static_cast<std::size_t>(kPairs));
  const auto rounds_of = [&](SideIndex from, std::uint64_t bytes) {
    std::multiset<std::uint64_t> rounds;
    for (const std::uint32_t index : indices) {
      rounds.insert(slots_.get(index, from) / bytes);
    }
    return rounds;
  };
  EXPECT_TRUE(eventually([&] { return rounds_of(kClient, 4) == wanted; }));
  EXPECT_TRUE(eventually([&] { return rounds_of(kServer, 5) == wanted; }));
}

}  // namespace
}  // namespace sidetrack::engine
