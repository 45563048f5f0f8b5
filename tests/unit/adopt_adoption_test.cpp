// SPDX-License-Identifier: Apache-2.0
// Adoption against an in-memory kernel: which requests are made, in which order, and when.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <set>

#include "agent/adopt/adoption.h"

namespace sidetrack::adopt {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kPodA = 100;
constexpr std::uint64_t kPodB = 200;

// Sockets by cookie: what a look at them says, and whether they are in the SOCKHASH.
class FakeSockets : public Sockets {
 public:
  struct Socket {
    st_fast_reason look = ST_FAST_NONE;
    unsigned busy = 0;         // so many releases find bytes on their way
    unsigned unreachable = 0;  // so many releases cannot visit it
    st_fast_reason drained = ST_FAST_NONE;
    bool in = false, armed = false, disarmed = false;
    std::optional<st_adopt_request> link;
  };
  std::map<std::uint64_t, Socket> sockets;
  std::vector<st_adopt_request> log;
  std::vector<std::uint64_t> destroyed;
  std::vector<std::uint64_t> nudged;
  unsigned released_before_disarm = 0;

  std::vector<st_fast_reason> run(const std::vector<st_adopt_request>& requests) override {
    std::vector<st_fast_reason> answers;
    answers.reserve(requests.size());
    for (const st_adopt_request& request : requests) {
      log.push_back(request);
      answers.push_back(serve(request));
    }
    return answers;
  }
  void nudge(std::uint64_t, std::uint64_t cookie) override { nudged.push_back(cookie); }
  bool destroy(std::uint64_t, std::uint64_t cookie) override {
    destroyed.push_back(cookie);
    return true;
  }

 private:
  st_fast_reason serve(const st_adopt_request& request) {
    const auto found = sockets.find(request.self.cookie);
    if (found == sockets.end()) {
      return ST_FAST_GONE;
    }
    Socket& socket = found->second;
    if (request.op == ST_ADOPT_LOOK || request.op == ST_ADOPT_INSERT) {
      if (socket.look == ST_FAST_NONE && request.op == ST_ADOPT_INSERT) {
        socket.in = true;
        socket.disarmed = false;
      }
      return socket.look;
    }
    if (!socket.in) {
      return ST_FAST_GONE;
    }
    switch (request.op) {
      case ST_ADOPT_ARM:
        socket.armed = true;
        return ST_FAST_NONE;
      case ST_ADOPT_LINK:
        socket.link = request;
        return ST_FAST_NONE;
      case ST_ADOPT_DRAINED:
        return socket.drained;
      case ST_ADOPT_DISARM:
        socket.disarmed = true;
        return ST_FAST_NONE;
      default:
        return release(socket, request);
    }
  }
  st_fast_reason release(Socket& socket, const st_adopt_request& request) {
    const auto peer = sockets.find(request.peer.cookie);
    if (peer != sockets.end() && peer->second.in && !peer->second.disarmed) {
      ++released_before_disarm;
    }
    if (socket.unreachable != 0) {
      --socket.unreachable;
      return ST_FAST_INTERNAL;
    }
    if (socket.busy != 0) {
      --socket.busy;
      return ST_FAST_READER_BUSY;
    }
    socket.in = socket.armed = false;
    return ST_FAST_NONE;
  }
};

class FakePods : public Pods {
 public:
  std::map<std::uint64_t, Pod> pods;
  std::optional<Pod> pod(std::uint64_t netns_cookie) override {
    const auto found = pods.find(netns_cookie);
    return found == pods.end() ? std::nullopt : std::optional(found->second);
  }
};

Pod make_pod(const std::string& workload) {
  Pod pod{.workload = workload};
  pod.row.mode = ST_MODE_PASSTHROUGH;
  pod.row.fast_path = ST_FAST_PATH_AUTO;
  pod.row.namespace_slot = 1;
  return pod;
}

class AdoptionTest : public ::testing::Test {
 protected:
  AdoptionTest() {
    pods_.pods[kPodA] = make_pod("shop/ReplicaSet/a");
    pods_.pods[kPodB] = make_pod("shop/ReplicaSet/b");
  }

  // A pair with client cookie `id` and server cookie `id + 1`, both alive and suitable.
  Candidate make_pair(std::uint64_t id, st_pair_kind kind = ST_PAIR_DIRECT) {
    sockets_.sockets[id] = {};
    sockets_.sockets[id + 1] = {};
    Candidate candidate{};
    candidate.key = {.client_first = static_cast<std::uint32_t>(id), .server_first = 7};
    candidate.kind = static_cast<std::uint8_t>(kind);
    candidate.end[ST_SIDE_CLIENT] = {.cookie = id, .netns_cookie = kPodA, .sock = 10 * id};
    candidate.end[ST_SIDE_SERVER] = {.cookie = id + 1, .netns_cookie = kPodB, .sock = 10 * id + 10};
    return candidate;
  }
  void nominate(const Candidate& candidate) {
    open_.push_back(candidate);
    adoption_.scan(open_, now_);
  }
  void tick(Clock::duration later = milliseconds(0)) {
    now_ += later;
    adoption_.tick(now_);
  }
  [[nodiscard]] bool is_in(std::uint64_t id) {
    return sockets_.sockets[id].in && sockets_.sockets[id + 1].in;
  }
  [[nodiscard]] std::size_t asked(std::uint64_t cookie, st_adopt_op op) const {
    return static_cast<std::size_t>(
        std::count_if(sockets_.log.begin(), sockets_.log.end(), [&](const auto& request) {
          return request.self.cookie == cookie && request.op == static_cast<unsigned>(op);
        }));
  }
  void adopt(std::uint64_t id, st_pair_kind kind = ST_PAIR_DIRECT) {
    nominate(make_pair(id, kind));
    tick();
    tick(kProbation);
    ASSERT_TRUE(is_in(id));
  }

  static constexpr milliseconds kProbation{30000};
  Clock::time_point now_ = Clock::now();
  std::vector<Candidate> open_;
  FakeSockets sockets_;
  FakePods pods_;
  Workloads workloads_{""};
  Adoption adoption_{{.enabled = true, .probation = kProbation}, sockets_, pods_, workloads_};
};

TEST_F(AdoptionTest, waits_for_probation_then_inserts_and_arms_both_ends) {
  nominate(make_pair(1));
  tick();
  EXPECT_EQ(asked(1, ST_ADOPT_LOOK), 1U);
  tick(kProbation - milliseconds(1));
  EXPECT_FALSE(is_in(1));
  EXPECT_EQ(adoption_.summaries()[kPodA].reason, ST_FAST_PROBATION);
  tick(milliseconds(1));
  EXPECT_TRUE(is_in(1));
  EXPECT_TRUE(sockets_.sockets[1].armed && sockets_.sockets[2].armed);
  EXPECT_EQ(adoption_.adopted(), 1U);
  // A pod's second connection need not wait.
  nominate(make_pair(11));
  tick();
  EXPECT_TRUE(is_in(11));
}

TEST_F(AdoptionTest, a_blocking_socket_is_refused_once_and_for_good) {
  const Candidate candidate = make_pair(1);
  sockets_.sockets[2].look = ST_FAST_BLOCKING;
  nominate(candidate);
  tick();
  sockets_.sockets[2].look = ST_FAST_NONE;
  tick(kProbation);
  EXPECT_FALSE(sockets_.sockets[1].in);
  EXPECT_EQ(adoption_.refused().at(ST_FAST_BLOCKING), 1U);
  EXPECT_EQ(adoption_.summaries()[kPodB].reason, ST_FAST_BLOCKING);
}

TEST_F(AdoptionTest, what_passes_is_looked_at_again) {
  const Candidate candidate = make_pair(1);
  sockets_.sockets[2].look = ST_FAST_NOT_ACCEPTED;
  nominate(candidate);
  tick();
  sockets_.sockets[2].look = ST_FAST_NONE;
  tick(seconds(1));
  tick(kProbation);
  EXPECT_TRUE(is_in(1));
}

TEST_F(AdoptionTest, a_connection_without_traffic_is_looked_at_for_as_long_as_it_lives) {
  const Candidate candidate = make_pair(1);
  sockets_.sockets[1].look = ST_FAST_YOUNG;
  nominate(candidate);
  for (int i = 0; i < 100; ++i) {
    tick(seconds(2));
  }
  EXPECT_LE(asked(1, ST_ADOPT_LOOK), 110U);
  sockets_.sockets[1].look = ST_FAST_NONE;
  tick(seconds(2));
  EXPECT_TRUE(is_in(1)) << "its pod's probation is over";
}

TEST_F(AdoptionTest, an_end_that_became_unsuitable_takes_the_other_out_again) {
  nominate(make_pair(1));
  tick();
  sockets_.sockets[2].look = ST_FAST_ZEROCOPY;
  tick(kProbation);  // the client's end went in
  tick(milliseconds(20));
  EXPECT_FALSE(sockets_.sockets[1].in);
  EXPECT_EQ(adoption_.refused().at(ST_FAST_ZEROCOPY), 1U);
}

TEST_F(AdoptionTest, what_passes_but_hinders_an_insertion_is_tried_again) {
  nominate(make_pair(1));
  tick();
  sockets_.sockets[2].look = ST_FAST_SLEEPER;
  tick(kProbation);  // the client's end went in
  tick(milliseconds(20));
  EXPECT_FALSE(sockets_.sockets[1].in);
  sockets_.sockets[2].look = ST_FAST_NONE;
  tick(seconds(3));
  tick(milliseconds(20));
  EXPECT_TRUE(is_in(1));
  EXPECT_TRUE(adoption_.refused().empty());
}

TEST_F(AdoptionTest, senders_are_disarmed_before_readers_are_released) {
  adopt(1);
  sockets_.sockets[2].busy = 3;
  adoption_.on_marked(2, now_);
  tick();
  EXPECT_TRUE(sockets_.sockets[2].in) << "bytes are on their way";
  for (int i = 0; i < 4; ++i) {
    tick(seconds(1));
  }
  EXPECT_FALSE(sockets_.sockets[1].in || sockets_.sockets[2].in);
  EXPECT_EQ(sockets_.released_before_disarm, 0U);
  EXPECT_EQ(adoption_.refused().at(ST_FAST_MARKED), 1U);
}

TEST_F(AdoptionTest, a_label_takes_out_and_lets_in_again) {
  adopt(1);
  pods_.pods[kPodB].row.fast_path = ST_FAST_PATH_OFF;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_FALSE(is_in(1));
  tick(milliseconds(50));
  EXPECT_EQ(adoption_.summaries()[kPodA].reason, ST_FAST_POD_OFF);
  pods_.pods[kPodB].row.fast_path = ST_FAST_PATH_AUTO;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_TRUE(is_in(1));
}

TEST_F(AdoptionTest, pods_of_two_namespaces_need_node_on_both) {
  pods_.pods[kPodB].row.namespace_slot = 2;
  nominate(make_pair(1));
  tick();
  tick(kProbation);
  EXPECT_FALSE(is_in(1));
  EXPECT_EQ(adoption_.summaries()[kPodA].reason, ST_FAST_OTHER_NAMESPACE);
  pods_.pods[kPodA].row.fast_path = ST_FAST_PATH_NODE;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_FALSE(is_in(1));
  pods_.pods[kPodB].row.fast_path = ST_FAST_PATH_NODE;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_TRUE(is_in(1));
}

TEST_F(AdoptionTest, a_demoted_pod_leaves_and_its_workload_is_remembered) {
  adopt(1);
  pods_.pods[kPodB].demoted = ST_FAST_SPLICE;
  adoption_.on_demoted(kPodB, ST_FAST_SPLICE, now_);
  tick();
  EXPECT_FALSE(is_in(1));
  EXPECT_EQ(workloads_.demoted("shop/ReplicaSet/b"), ST_FAST_SPLICE);
  // The next replica.
  pods_.pods[300] = make_pod("shop/ReplicaSet/b");
  Candidate candidate = make_pair(21);
  candidate.end[ST_SIDE_SERVER].netns_cookie = 300;
  nominate(candidate);
  tick();
  tick(kProbation);
  EXPECT_FALSE(is_in(21));
  EXPECT_EQ(adoption_.summaries()[300].reason, ST_FAST_WORKLOAD);
}

// The relay of client 1 -> (2, 31) -> 32.
TEST_F(AdoptionTest, a_link_joins_the_two_applications_of_a_relay) {
  adopt(1, ST_PAIR_TO_ENGINE);
  adoption_.on_link({.client_leg = 2, .server_leg = 31, .index = 5}, now_);
  tick();
  EXPECT_FALSE(sockets_.sockets[1].link);
  adopt(31, ST_PAIR_FROM_ENGINE);
  tick();
  ASSERT_TRUE(sockets_.sockets[1].link && sockets_.sockets[32].link);
  EXPECT_EQ(sockets_.sockets[1].link->slot, 10U);
  EXPECT_EQ(sockets_.sockets[1].link->leg.cookie, 31U);
  EXPECT_EQ(sockets_.sockets[1].link->far.cookie, 32U);
  EXPECT_EQ(sockets_.sockets[32].link->slot, 11U);
  EXPECT_EQ(sockets_.sockets[32].link->leg.cookie, 2U);
  EXPECT_EQ(sockets_.sockets[32].link->far.cookie, 1U);
  EXPECT_EQ(sockets_.sockets[32].link->client_key.client_first, 1U);
  // One of both leaves: the other application sends past the engine to it, so it leaves too.
  adoption_.on_marked(32, now_);
  tick();
  EXPECT_FALSE(is_in(1) || is_in(31));
}

TEST_F(AdoptionTest, an_agent_that_restarts_knows_what_is_adopted) {
  adopt(1);
  st_fast_live client{};
  client.sock = 10;
  client.state.key = {.client_first = 1, .server_first = 7};
  client.state.cookie = 1;
  client.state.netns_cookie = kPodA;
  client.state.peer = {.cookie = 2, .sock = 20};
  client.state.peer_netns_cookie = kPodB;
  client.state.side = ST_SIDE_CLIENT;
  st_fast_live server = client;
  server.sock = 20;
  server.state.cookie = 2;
  server.state.netns_cookie = kPodB;
  server.state.peer = {.cookie = 1, .sock = 10};
  server.state.peer_netns_cookie = kPodA;
  server.state.side = ST_SIDE_SERVER;
  Adoption next({.enabled = true, .probation = kProbation}, sockets_, pods_, workloads_);
  next.restore({client, server}, now_);
  EXPECT_EQ(next.adopted(), 1U);
  next.on_policy_changed(now_);
  next.tick(now_);
  EXPECT_TRUE(is_in(1)) << "probation is for new ones";
  pods_.pods[kPodA].row.mode = ST_MODE_DISABLED;
  next.on_policy_changed(now_);
  next.tick(now_);
  EXPECT_FALSE(is_in(1));
}

TEST_F(AdoptionTest, half_an_adoption_is_completed_after_a_restart) {
  st_fast_live client{};
  client.sock = 10;
  client.state.cookie = 1;
  client.state.netns_cookie = kPodA;
  client.state.peer = {.cookie = 2, .sock = 20};
  client.state.peer_netns_cookie = kPodB;
  (void)make_pair(1);
  sockets_.sockets[1].in = true;
  adoption_.restore({client}, now_);
  tick();
  EXPECT_TRUE(is_in(1));
  EXPECT_TRUE(sockets_.sockets[1].armed && sockets_.sockets[2].armed);
}

TEST_F(AdoptionTest, closed_connections_are_forgotten) {
  adopt(1);
  open_.clear();
  adoption_.scan(open_, now_);
  EXPECT_EQ(adoption_.adopted(), 0U);
  nominate(make_pair(11));
  sockets_.sockets.clear();
  tick();
  EXPECT_EQ(adoption_.summaries()[kPodA].waiting, 0U);
}

TEST_F(AdoptionTest, a_reader_that_does_not_come_back_is_told_again) {
  adopt(1);
  sockets_.sockets[2].drained = ST_FAST_READER_BUSY;
  adoption_.on_owed(2, now_);
  for (int i = 0; i < 5; ++i) {
    tick(milliseconds(10));
  }
  EXPECT_TRUE(sockets_.nudged.empty()) << "it has yet to read what comes first";
  sockets_.sockets[2].drained = ST_FAST_UNREAD;
  tick(milliseconds(10));
  EXPECT_TRUE(sockets_.nudged.empty()) << "it may be about to read";
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged, std::vector<std::uint64_t>{2});
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged.size(), 1U);
  // The next time it has read all by itself.
  sockets_.sockets[2].drained = ST_FAST_NONE;
  adoption_.on_owed(2, now_);
  tick(milliseconds(10));
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged.size(), 1U);
}

// Taking out waits for what skipped TCP, not for what came behind it by TCP.
TEST_F(AdoptionTest, a_reader_that_was_taken_out_is_told_of_what_came_by_tcp) {
  adopt(1);
  adoption_.on_owed(2, now_);
  pods_.pods[kPodB].row.fast_path = ST_FAST_PATH_OFF;
  adoption_.on_policy_changed(now_);
  tick(milliseconds(0));
  ASSERT_FALSE(is_in(2));
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged, std::vector<std::uint64_t>{2});
  tick(milliseconds(10));
  EXPECT_EQ(sockets_.nudged.size(), 1U);
}

TEST_F(AdoptionTest, a_conflict_ends_the_connection) {
  adopt(1);
  adoption_.on_conflict(kPodB, 2);
  EXPECT_EQ(sockets_.destroyed, std::vector<std::uint64_t>{2});
}

TEST_F(AdoptionTest, an_end_that_could_not_be_visited_is_visited_again_before_the_pair_is_out) {
  adopt(1);
  sockets_.sockets[2].unreachable = 2;
  adoption_.on_demoted(kPodA, ST_FAST_MARKED, now_);
  tick();
  EXPECT_TRUE(sockets_.sockets[2].in);
  tick(seconds(1));
  tick(seconds(1));
  EXPECT_FALSE(sockets_.sockets[2].in);
}

}  // namespace
}  // namespace sidetrack::adopt
