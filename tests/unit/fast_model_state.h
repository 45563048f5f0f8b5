// SPDX-License-Identifier: Apache-2.0
// What fast_model.cpp knows of the connection at one moment. Plain bytes, so that states can be
// compared and hashed.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string_view>
#include <type_traits>

#include "sidetrack/fast_rules.h"

namespace sidetrack::model {

constexpr std::uint8_t kFin = 15;
constexpr std::uint8_t kReset = 14;
// Sequence numbers wrap during a run.
constexpr std::uint32_t kFirst = 0xfffffffe;
constexpr std::uint64_t kCookie = 1;
constexpr std::uint32_t kWindow = 1U << 20;
constexpr int kEngineBuffer = 2;

// Up to eight bytes in order, four bits each, the oldest lowest.
struct Queue {
  std::uint32_t bits = 0;
  [[nodiscard]] bool empty() const { return bits == 0; }
  [[nodiscard]] int size() const { return (std::bit_width(bits) + 3) / 4; }
  void push(std::uint8_t byte) { bits |= static_cast<std::uint32_t>(byte) << (4 * size()); }
  std::uint8_t pop() {
    const auto byte = static_cast<std::uint8_t>(bits & 15U);
    bits >>= 4;
    return byte;
  }
};

enum Receiving : std::uint8_t { kNotReceiving, kInPsock, kInTcp };

// The receiving half of a socket: B's or E_a's.
struct Reader {
  Queue wire;  // sent by TCP, not yet there
  Queue tcp;
  Queue fast;  // of the psock
  std::uint8_t copied = 0;
  std::uint8_t adopted = 0;
  std::uint8_t phase = kNotReceiving;
  std::uint8_t reset = 0;  // a reset has come
};

enum Sending : std::uint8_t {
  kNotSending,
  kPlain,  // chose TCP's own sendmsg
  kWaits,  // chose the one past TCP, and waits for the lock that another thread may have
  kLook1,  // handoff: the three looks
  kLook2,
  kLook3,
  kPeer,         // looks at its peer
  kOnWayToPeer,  // decided, the lock is dropped, not yet in the queue
  kOnWayToFar,
};

// A thread that sends: its call, if it is in one.
struct Call {
  std::uint8_t next = 1;  // what it sends
  std::uint8_t phase = kNotSending;
  std::uint8_t seen_slot = 0;
  std::uint8_t seen_leg = 0;
  std::uint8_t seen_copied = 0;

  // The call has a psock.
  [[nodiscard]] bool is_past_tcp() const { return phase != kNotSending && phase != kPlain; }
  // It has the socket's lock.
  [[nodiscard]] bool decides() const { return phase >= kLook1 && phase <= kPeer; }
};

// Messages of the second thread begin with this one.
constexpr std::uint8_t kSecond = 8;

struct Sender {
  Call call[2];
  std::uint8_t written = 0;  // by TCP
  std::uint8_t sent = 0;     // redirected to the peer
  std::uint8_t handed = 0;   // redirected to the far end
  std::uint8_t adopted = 0;
  std::uint8_t arming = 0;  // both are in
  std::uint8_t armed = 0;
  std::uint8_t peer_copied = 0;
  std::uint8_t released = 0;
  std::uint8_t linked = 0;
  std::uint8_t far_armed = 0;
  std::uint8_t far_copied = 0;
  std::uint8_t aborted = 0;    // has sent a reset: its send() must fail
  std::uint8_t denied = 0;     // by policy
  std::uint8_t waiting = 0;    // redirected since a reader's queue was seen empty
  std::uint8_t overflown = 0;  // one went by TCP for want of room
  std::uint8_t pad[3] = {};

  [[nodiscard]] bool is_past_tcp() const { return call[0].is_past_tcp() || call[1].is_past_tcp(); }
  [[nodiscard]] bool is_locked() const { return call[0].decides() || call[1].decides(); }
};

enum Relaying : std::uint8_t { kNotRelaying, kCounted, kWrote, kOnWay };

struct Engine {
  Queue buffer;
  std::uint8_t slot = 0;
  std::uint8_t written = 0;  // by TCP on E_b
  std::uint8_t phase = kNotRelaying;
  std::uint8_t closed = 0;
};

struct State {
  Sender a;
  Reader b;
  Reader ea;
  Engine engine;
  std::uint8_t expected[2] = {1, kSecond};  // by the thread that sends it
  std::uint8_t ended = 0;                   // B has read the end: kFin or kReset
  std::uint8_t closed = 0;                  // A sends no more
  std::uint8_t releasing = 0;               // how far the look before A's peer is taken out is
  std::uint8_t release_count = 0;
  std::uint8_t a_is_out = 0;   // A was taken out before its peer
  std::uint8_t b_leaving = 0;  // the relay's other pair leaves, too
  std::uint8_t b_releasing = 0;
  std::uint8_t b_count = 0;
  std::uint8_t has_left = 0;  // a relay's pairs leave once: more would be too many states
  std::uint8_t pad = 0;

  bool operator==(const State& other) const {
    return std::memcmp(this, &other, sizeof(State)) == 0;
  }
};
static_assert(std::has_unique_object_representations_v<State>);

struct Hash {
  std::size_t operator()(const State& state) const {
    return std::hash<std::string_view>()(
        std::string_view(reinterpret_cast<const char*>(&state), sizeof(state)));
  }
};

inline std::uint8_t state_of(std::uint8_t is_closed) {
  constexpr std::uint8_t kTcpClose = 7;
  return is_closed != 0 ? kTcpClose : std::uint8_t{ST_TCP_ESTABLISHED};
}

inline st_reader look_at(const Reader& reader, bool locked) {
  st_reader found{};
  found.cookie = kCookie;
  found.copied_seq = kFirst + reader.copied;
  found.queued = static_cast<std::uint32_t>(reader.fast.size());
  found.receive_buffer = 4 * kWindow;
  found.state = state_of(reader.reset);
  found.adopted = reader.adopted;
  found.queue_empty = reader.fast.empty() ? 1 : 0;
  found.locked = locked ? 1 : 0;
  found.nonblocking = 1;
  return found;
}

// The second after both are in is over, or the guard is gone.
inline std::uint8_t may_arm(std::uint8_t both_in, bool guarded, std::uint8_t then,
                            std::uint8_t now) {
  return (guarded ? st_may_arm(both_in, 1, then, now) != 0 : both_in != 0) ? 1 : 0;
}

inline st_sender look_at(const Sender& sender) {
  st_sender found{};
  found.state = state_of(sender.aborted);
  found.error = sender.aborted;
  return found;
}

}  // namespace sidetrack::model
