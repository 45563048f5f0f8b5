// SPDX-License-Identifier: Apache-2.0
// AdoptionTest: adoption against an in-memory kernel that notes which requests are made.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "agent/adopt/adoption.h"

namespace sidetrack::adopt {

using std::chrono::milliseconds;
using std::chrono::seconds;

inline constexpr std::uint64_t kPodA = 100;
inline constexpr std::uint64_t kPodB = 200;

// Sockets by cookie: what a look at them says, and whether they are in the SOCKHASH.
class FakeSockets : public Sockets {
 public:
  struct Socket {
    st_fast_reason look = ST_FAST_NONE;
    st_fast_reason inserted = ST_FAST_NONE;  // what an insertion finds that the look did not
    unsigned busy = 0;                       // so many releases find bytes on their way
    unsigned unreachable = 0;                // so many releases cannot visit it
    st_fast_reason drained = ST_FAST_NONE;
    bool in = false, armed = false, disarmed = false;
    std::optional<st_adopt_request> link;
    st_fast_reason link_answer = ST_FAST_NONE;
    bool hands_off = false;
  };
  std::map<std::uint64_t, Socket> sockets;
  std::vector<st_adopt_request> log;
  std::vector<std::uint64_t> destroyed;
  std::vector<std::uint64_t> nudged;
  std::vector<std::uint64_t> widened;             // netns cookies
  std::map<std::uint64_t, st_fast_reason> noted;  // by the client's cookie
  unsigned released_before_disarm = 0;
  bool can_destroy = true;

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
  void widen(std::uint64_t netns_cookie) override { widened.push_back(netns_cookie); }
  bool destroy(std::uint64_t, std::uint64_t cookie) override {
    destroyed.push_back(cookie);
    return can_destroy;
  }

 private:
  st_fast_reason serve(const st_adopt_request& request) {
    const auto found = sockets.find(request.self.cookie);
    if (found == sockets.end()) {
      return ST_FAST_GONE;
    }
    Socket& socket = found->second;
    if (request.op == ST_ADOPT_NOTE) {
      st_fast_reason& known = noted[request.self.cookie];
      if (request.if_none == 0 || known == ST_FAST_NONE) {
        known = static_cast<st_fast_reason>(request.reason);
      }
      return ST_FAST_NONE;
    }
    if (request.op == ST_ADOPT_LOOK) {
      return socket.look;
    }
    if (request.op == ST_ADOPT_INSERT) {
      return insert(socket, request);
    }
    if (!socket.in) {
      return ST_FAST_GONE;
    }
    switch (request.op) {
      case ST_ADOPT_ARM:
        socket.armed = true;
        return ST_FAST_NONE;
      case ST_ADOPT_LINK:
        if (socket.link_answer == ST_FAST_NONE) {
          socket.link = request;
        }
        return socket.link_answer;
      case ST_ADOPT_ARM_LINK:
        socket.hands_off = socket.link.has_value();
        return socket.hands_off ? ST_FAST_NONE : ST_FAST_RELAY_GONE;
      case ST_ADOPT_DRAINED:
        return socket.drained;
      case ST_ADOPT_DISARM:
        socket.disarmed = true;
        return ST_FAST_NONE;
      default:
        return release(socket, request);
    }
  }
  st_fast_reason insert(Socket& socket, const st_adopt_request& request) {
    const st_fast_reason found = socket.look != ST_FAST_NONE ? socket.look : socket.inserted;
    if (found == ST_FAST_NONE) {
      socket.in = true;
      socket.disarmed = socket.hands_off = false;
      socket.link.reset();
      noted[(request.side == ST_SIDE_CLIENT ? request.self : request.peer).cookie] =
          ST_FAST_UNARMED;
    }
    return found;
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

inline Pod make_pod(const std::string& workload) {
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

  // What the kernel shows of one end of the pair of client `id`; `leg`: it is linked.
  static st_fast_live live(std::uint64_t id, st_pair_side side, st_pair_kind kind = ST_PAIR_DIRECT,
                           std::uint64_t leg = 0) {
    const bool is_client = side == ST_SIDE_CLIENT;
    st_fast_live row{};
    row.sock = is_client ? 10 * id : 10 * id + 10;
    row.state.key = {.client_first = static_cast<std::uint32_t>(id), .server_first = 7};
    row.state.cookie = is_client ? id : id + 1;
    row.state.netns_cookie = is_client ? kPodA : kPodB;
    row.state.peer = {.cookie = is_client ? id + 1 : id,
                      .sock = is_client ? 10 * id + 10 : 10 * id};
    row.state.peer_netns_cookie = is_client ? kPodB : kPodA;
    row.state.side = static_cast<std::uint8_t>(side);
    row.state.kind = static_cast<std::uint8_t>(kind);
    row.state.linked = leg == 0 ? 0 : 1;
    row.state.leg = {.cookie = leg, .sock = 10 * leg};
    row.state.slot = is_client ? 10 : 11;
    return row;
  }
  // The relay of client 1 -> (2, 31) -> 32.
  [[nodiscard]] bool hands_off() {
    return sockets_.sockets[1].hands_off && sockets_.sockets[32].hands_off;
  }

  static constexpr milliseconds kProbation{30000};
  Clock::time_point now_ = Clock::now();
  std::vector<Candidate> open_;
  FakeSockets sockets_;
  FakePods pods_;
  Workloads workloads_{""};
  Adoption adoption_{{.enabled = true, .probation = kProbation}, sockets_, pods_, workloads_};
};

}  // namespace sidetrack::adopt
