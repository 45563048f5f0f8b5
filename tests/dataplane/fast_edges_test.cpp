// SPDX-License-Identifier: Apache-2.0
// A reader that watches edges and takes a short read for "drained" gets all bytes, whatever made
// the last of them go by TCP while others waited past it.
#include <bpf/bpf.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_scenarios.h"

namespace sidetrack::lab {
namespace {

constexpr std::size_t kMessage = 100;
constexpr int kMoreThanWait = ST_FAST_MESSAGES + 40;

class FastEdges : public FastNode {
 protected:
  // Watches `fd` from here on.
  static UniqueFd watch(const UniqueFd& fd) {
    UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
    EXPECT_EQ(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event), 0);
    return epoll;
  }
  static void send(const UniqueFd& fd, int messages) {
    const std::string message(kMessage, 'm');
    for (int i = 0; i < messages; ++i) {
      EXPECT_EQ(send_text(fd, message), "sent");
    }
  }
  // Marks all pairs as if a word was on its way to their readers.
  void owe_everybody() const {
    const UniqueFd map(::bpf_obj_get((sidetrack_->pin_dir() + "/v1/maps/st_pairs").c_str()));
    ASSERT_TRUE(map.valid());
    st_pair_key key{};
    const st_pair_key* before = nullptr;
    while (::bpf_map_get_next_key(map.get(), before, &key) == 0) {
      st_pair pair{};
      ASSERT_EQ(::bpf_map_lookup_elem(map.get(), &key, &pair), 0);
      pair.owed[0] = pair.owed[1] = 1;
      ASSERT_EQ(::bpf_map_update_elem(map.get(), &key, &pair, BPF_EXIST), 0);
      before = &key;
    }
    ASSERT_NE(before, nullptr);
  }
  [[nodiscard]] std::uint64_t adopted() const {
    const auto status = sidetrack_->get("/v1/status");
    return status ? status->value("fast_path_connections", std::uint64_t{1}) : 1;
  }
  // Reads after each edge until a read is short; what came of `messages`.
  static std::size_t read(const UniqueFd& epoll, const UniqueFd& fd, int messages) {
    std::vector<char> buffer(65536);
    std::size_t total = 0;
    epoll_event event{};
    while (total < static_cast<std::size_t>(messages) * kMessage &&
           ::epoll_wait(epoll.get(), &event, 1, static_cast<int>(kPatience.count())) == 1) {
      ssize_t got = 0;
      do {
        got = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
        total += got > 0 ? static_cast<std::size_t>(got) : 0;
      } while (got == static_cast<ssize_t>(buffer.size()));
    }
    return total;
  }
};

// The sender's state is then CLOSE_WAIT: it sends by TCP for good.
TEST_F(FastEdges, gets_what_comes_by_tcp_after_its_own_half_close) {
  const Ends ends = open_fast();
  const UniqueFd epoll = watch(ends.server);
  send(ends.client, 3);
  EXPECT_EQ(::shutdown(ends.server.get(), SHUT_WR), 0);
  EXPECT_EQ(receive_text(ends.client, 1), "EOF");
  const std::uint64_t by_tcp = sent_by_tcp(ends.client);
  send(ends.client, 3);
  ASSERT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  EXPECT_GE(sent_by_tcp(ends.client) - by_tcp, 3 * kMessage);
  EXPECT_EQ(read(epoll, ends.server, 6), 6 * kMessage);
}

// Nobody is there to look after it meanwhile; its successor does, also for the next such moment.
TEST_F(FastEdges, gets_what_came_by_tcp_when_the_agent_died_and_is_back) {
  const Ends ends = open_fast();
  const UniqueFd epoll = watch(ends.server);
  sidetrack_->agent().kill_hard();
  send(ends.client, kMoreThanWait);
  ASSERT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  ST_ASSERT_OK(sidetrack_->start_agent());
  EXPECT_EQ(read(epoll, ends.server, kMoreThanWait), kMoreThanWait * kMessage);
  send(ends.client, kMoreThanWait);
  ASSERT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  EXPECT_EQ(read(epoll, ends.server, kMoreThanWait), kMoreThanWait * kMessage);
}

// A debt that nobody remembers any more does not hide those of its next time.
TEST_F(FastEdges, gets_all_again_after_it_was_taken_out_and_put_in) {
  Ends ends = open_fast();
  const UniqueFd epoll = watch(ends.server);
  owe_everybody();
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "off"));
  ASSERT_TRUE(eventually(kPatience, [&] { return adopted() == 0; }));
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "auto"));
  make_fast({&ends});
  send(ends.client, kMoreThanWait);
  ASSERT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  EXPECT_EQ(read(epoll, ends.server, kMoreThanWait), kMoreThanWait * kMessage);
}

class HandoffEdges : public FastEdges {
 protected:
  HandoffEdges() { redirected_ = {"shop"}; }
  static std::uint64_t received_by_tcp(const UniqueFd& fd) {
    tcp_info info{};
    socklen_t size = sizeof(info);
    EXPECT_EQ(::getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    return info.tcpi_bytes_received;
  }
  Ends open_handed_off() {
    Ends ends = open(true);
    EXPECT_TRUE(eventually(2 * kPatience, [&] {
      const std::uint64_t before = handoffs();
      pass(ends.client, ends.server, "x");
      pass(ends.server, ends.client, "y");
      return handoffs() - before == 2;
    })) << sidetrack_->logs();
    return ends;
  }
  // Of messages of kMessage bytes from the client.
  struct Arrivals {
    std::uint64_t past_engine;  // messages
    std::uint64_t by_tcp;       // bytes
  };
  [[nodiscard]] Arrivals arrivals(const Ends& ends) const {
    return {handoffs(), received_by_tcp(ends.server)};
  }
  [[nodiscard]] std::uint64_t bytes_since(const Arrivals& before, const Ends& ends) const {
    const Arrivals now = arrivals(ends);
    return (now.past_engine - before.past_engine) * kMessage + now.by_tcp - before.by_tcp;
  }
};

// The first messages go past the engine, the others through it: the engine's socket sends those.
TEST_F(HandoffEdges, gets_what_came_past_the_engine_and_through_it) {
  const Ends ends = open_handed_off();
  const UniqueFd epoll = watch(ends.server);
  const Arrivals before = arrivals(ends);
  send(ends.client, kMoreThanWait);
  // All of it is there before the first look.
  ASSERT_TRUE(
      eventually(kPatience, [&] { return bytes_since(before, ends) == kMoreThanWait * kMessage; }));
  EXPECT_GT(arrivals(ends).by_tcp, before.by_tcp);
  EXPECT_EQ(read(epoll, ends.server, kMoreThanWait), kMoreThanWait * kMessage);
}

// The engine's socket sends the FIN, which waits for what came past the engine.
TEST_F(HandoffEdges, knows_of_the_end_when_it_has_read_what_came_past_the_engine) {
  Ends ends = open_handed_off();
  const Arrivals before = arrivals(ends);
  send(ends.client, kMoreThanWait);
  ends.client.reset();
  ASSERT_TRUE(
      eventually(kPatience, [&] { return bytes_since(before, ends) == kMoreThanWait * kMessage; }));
  ASSERT_GT(arrivals(ends).by_tcp, before.by_tcp);
  EXPECT_EQ(scenarios::read_until_end_is_known(ends.server),
            std::to_string(kMoreThanWait * kMessage) + " end");
}

}  // namespace
}  // namespace sidetrack::lab
