// SPDX-License-Identifier: Apache-2.0
// An engine that ends before its connections do: those whose bytes go past it end as those that it
// relays byte for byte, and whatever had arrived is read. And an engine whose reader stands still.
#include <netinet/in.h>
#include <sys/socket.h>

#include <csignal>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <set>

#include "tests/dataplane/fast_node.h"
#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/talker.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint64_t kSome = 4'000'000;

// Namespace plain is the control: redirected, too, with the fast path off.
class HandoffCut : public FastNode {
 protected:
  explicit HandoffCut(std::vector<std::string> engine_arguments = {}) {
    handoff_ = true;
    engine_arguments_ = std::move(engine_arguments);
    redirected_ = {"shop", "plain"};
  }
  // How streams of clients and of servers ended: "0" for FIN, else the errno's name.
  struct Seen {
    std::set<std::string> clients, servers;
  };
  struct Streams {
    std::vector<Ends> ends;
    std::vector<std::unique_ptr<Talker>> clients, servers;
  };
  [[nodiscard]] Streams connect_some(bool fast) {
    constexpr std::uint64_t kCount = 3;
    Streams streams;
    std::vector<Ends*> all;
    for (std::uint64_t i = 0; i < kCount; ++i) {
      streams.ends.push_back(open(fast, i % 2 == 0 ? Route::kV4 : Route::kV6));
    }
    for (Ends& ends : streams.ends) {
      all.push_back(&ends);
    }
    if (fast) {
      make_fast(all);
    }
    return streams;
  }
  static void talk(Streams& streams) {
    for (std::uint64_t i = 0; i < streams.ends.size(); ++i) {
      const Ends& ends = streams.ends[i];
      streams.clients.push_back(std::make_unique<Talker>(ends.client.get(), 2 * i + 1, 2 * i + 2));
      streams.servers.push_back(std::make_unique<Talker>(ends.server.get(), 2 * i + 2, 2 * i + 1));
    }
  }
  static void run_for_a_while(const Streams& streams) {
    for (std::size_t i = 0; i < streams.clients.size(); ++i) {
      EXPECT_TRUE(both_receive(*streams.clients[i], *streams.servers[i], kSome));
    }
  }
  static Seen ends_of(const Streams& streams) {
    Seen seen;
    for (const auto& [talkers, names] :
         {std::pair{&streams.clients, &seen.clients}, std::pair{&streams.servers, &seen.servers}}) {
      for (const auto& talker : *talkers) {
        EXPECT_TRUE(eventually(kPatience, [&] { return talker->ended(); }));
        EXPECT_TRUE(talker->intact());
        const int error = talker->error_number();
        names->insert(error == 0 ? "0" : ::strerrorname_np(error));
      }
    }
    return seen;
  }
  // Streams both ways until `cut` has ended the engine.
  void expect_same_ends(const std::function<void()>& cut) {
    const auto handoffs = [this] {
      return KernelView(sidetrack_->pin_dir()).fast_counts().value().handoffs;
    };
    Streams relayed = connect_some(false);
    Streams handed = connect_some(true);
    const std::uint64_t before = handoffs();
    talk(relayed);
    talk(handed);
    run_for_a_while(relayed);
    run_for_a_while(handed);
    EXPECT_GT(handoffs(), before);
    cut();
    const Seen control = ends_of(relayed);
    const Seen seen = ends_of(handed);
    EXPECT_EQ(seen.clients, control.clients);
    EXPECT_EQ(seen.servers, control.servers);
  }
  // Bytes of both sides have arrived and are not read.
  void expect_same_last_words(const std::function<void()>& cut) {
    Ends relayed = open(false);
    Ends handed = open(true);
    make_fast({&handed});
    const Counted run = run_counted(
        [&](Ends&) {
          for (const Ends* ends : {&relayed, &handed}) {
            EXPECT_EQ(send_text(ends->client, "last words"), "sent");
            EXPECT_EQ(send_text(ends->server, "back"), "sent");
            EXPECT_EQ(receive_text(ends->server, 1, MSG_PEEK), "'l'");
            EXPECT_EQ(receive_text(ends->client, 1, MSG_PEEK), "'b'");
          }
          return "";
        },
        nobody_);
    EXPECT_EQ(run.skipped, 2U);
    cut();
    const auto rest = [](const Ends& ends) {
      std::string said;
      for (const UniqueFd* fd : {&ends.client, &ends.server}) {
        for (int i = 0; i < 3; ++i) {
          said += receive_text(*fd, 99) + " ";
        }
      }
      return said;
    };
    const std::string control = rest(relayed);
    EXPECT_EQ(rest(handed), control);
    EXPECT_EQ(control.rfind("'back' ", 0), 0U) << control;
    EXPECT_NE(control.find(" 'last words' "), std::string::npos) << control;
  }
  void kill_engine() { sidetrack_->engine().kill_hard(); }

  Ends nobody_;
};

TEST_F(HandoffCut, streams_of_a_killed_engine_end_as_relayed_ones) {
  expect_same_ends([this] { kill_engine(); });
}

TEST_F(HandoffCut, what_had_arrived_is_read_after_the_engine_is_killed) {
  expect_same_last_words([this] { kill_engine(); });
}

class HandoffDrain : public HandoffCut {
 protected:
  HandoffDrain() : HandoffCut({"--drain", "1s"}) {}
  void run_out() {
    ST_ASSERT_OK(sidetrack_->engine().signal(SIGTERM));
    ST_ASSERT_VALUE(const int status, sidetrack_->engine().wait());
    EXPECT_EQ(status, 0);
  }
};

TEST_F(HandoffDrain, streams_that_outlast_it_end_as_relayed_ones) {
  expect_same_ends([this] { run_out(); });
}

TEST_F(HandoffDrain, what_had_arrived_is_read_after_it_ran_out) {
  expect_same_last_words([this] { run_out(); });
}

class HandoffOneThread : public HandoffCut {
 protected:
  HandoffOneThread() : HandoffCut({"--threads", "1"}) {}
};

// What is sent to a reader that page-faults waits in TCP, not in the engine.
TEST_F(HandoffOneThread, a_reader_that_page_faults_does_not_hold_the_engine) {
  Ends others = open(false);
  Ends ends = open(true);
  make_fast({&ends});
  const auto by_engine = [this] {
    return KernelView(sidetrack_->pin_dir()).fast_counts().value().refused["fp_engine_sends"];
  };
  const FaultingPage page;
  EXPECT_EQ(send_text(ends.client, "hello "), "sent");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'h'");
  auto reader = std::async(std::launch::async, [&] {
    return ::recv(ends.server.get(), page.memory(), FaultingPage::kSize, MSG_DONTWAIT);
  });
  page.wait_for_fault();
  for (const char* text : {"wide ", "world"}) {
    const std::uint64_t before = by_engine();
    EXPECT_EQ(send_text(ends.client, text), "sent");
    EXPECT_TRUE(eventually(kPatience, [&] { return by_engine() > before; })) << text;
    for (int i = 0; i < 50; ++i) {
      pass(others.client, others.server, "ping");
      pass(others.server, others.client, "pong");
    }
    set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);  // the next one by TCP to the engine
  }
  page.fill();
  const ssize_t first = reader.get();
  const std::string begin(page.memory(), first > 0 ? static_cast<std::size_t>(first) : 0);
  EXPECT_EQ(begin + scenarios::receive_all(ends.server, 16 - begin.size()), "hello wide world");
}

}  // namespace
}  // namespace sidetrack::lab
