// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/fast_model.h"

#include <algorithm>
#include <unordered_map>

#include "tests/unit/fast_model_state.h"

namespace sidetrack::model {

namespace {

class Explorer {
 public:
  explicit Explorer(const Setup& setup) : setup_(setup), guards_(setup.guards) {}

  Outcome run() {
    add(begin(), nullptr, "start");
    for (std::size_t i = 0; i < order_.size() && outcome_.wrong.empty(); ++i) {
      from_ = order_[i];
      const State& state = from_->first;
      send(state);
      receive(state);
      deliver(state);
      if (!state.releasing && !state.b_releasing) {
        join(state);
      }
      if (setup_.relay) {
        relay(state);
      }
      if (setup_.leaves) {
        leave(state);
      }
    }
    outcome_.states = order_.size();
    return outcome_;
  }

 private:
  [[nodiscard]] State begin() const {
    State state;
    if (setup_.was_out) {
      state.a.next = state.expected = 3;
      state.a.written = state.a.sent = state.ea.copied = 1;
      state.engine.slot = state.engine.written = state.b.copied = 2;
      state.has_left = 1;
    }
    return state;
  }

  struct Origin {
    const std::pair<const State, Origin>* from = nullptr;
    const char* action = "";
  };
  using Node = std::pair<const State, Origin>;

  void add(const State& state, const Node* from, const char* action) {
    const auto [node, fresh] = seen_.try_emplace(state, Origin{.from = from, .action = action});
    if (!fresh) {
      return;
    }
    order_.push_back(&*node);
    outcome_.ends |= state.ended != 0;
    outcome_.skips_tcp |= state.ended != 0 && state.a.sent + state.a.handed != 0;
    outcome_.hands_off |= state.ended != 0 && state.a.handed != 0;
  }
  void go(const State& state, const char* action) { add(state, from_, action); }

  void fail(const std::string& what, const char* action) {
    outcome_.wrong = what;
    outcome_.run = {action};
    for (const Node* node = from_; node != nullptr; node = node->second.from) {
      outcome_.run.emplace_back(node->second.action);
    }
    std::reverse(outcome_.run.begin(), outcome_.run.end());
  }

  Reader& peer_of(State& state) const { return setup_.relay ? state.ea : state.b; }

  // In a call that began past TCP: it holds the psock.
  static bool is_past_tcp(const Sender& a) { return a.phase != kNotSending && a.phase != kPlain; }

  void write_tcp(State& state) const {
    peer_of(state).wire.push(state.a.next++);
    ++state.a.written;
    state.a.phase = kNotSending;
  }

  void send(const State& before) {
    State state = before;
    Sender& a = state.a;
    switch (a.phase) {
      case kNotSending:
        if (a.next <= setup_.messages) {
          a.phase = !a.adopted || state.a_is_out ? kPlain : a.linked ? kLook1 : kPeer;
          return go(state, "A: send() begins");
        }
        if (!state.closed) {
          state.closed = 1;
          peer_of(state).wire.push(kFin);
          ++a.written;
          return go(state, "A: close()");
        }
        return;
      case kPlain:
        write_tcp(state);
        return go(state, "A: a plain send() writes to TCP");
      case kLook1:
      case kLook2:
      case kLook3:
        return look_for_handoff(state);
      case kPeer:
        try_peer(before, false);
        return try_peer(before, true);
      default:
        return arrive(state);
    }
  }

  void look_for_handoff(State state) {
    Sender& a = state.a;
    const int look = a.phase - kLook1 + (guards_.slot_first ? 0 : 1);
    if (look % 3 == 0) {
      a.seen_slot = state.engine.slot;
    } else if (look % 3 == 1) {
      a.seen_leg = state.engine.written;
    } else {
      a.seen_copied = state.b.copied;
    }
    if (a.phase != kLook3) {
      ++a.phase;
      return go(state, "A: the program looks, for a handoff");
    }
    a.phase = kPeer;
    Reader seen = state.b;
    seen.copied = a.seen_copied;
    const st_reader far = look_at(seen, false);
    const bool empty =
        !guards_.relay_empty || st_relay_empty(a.seen_slot, kFirst + a.written, kFirst, a.sent);
    a.far_armed |= !guards_.far_armed || a.far_copied != seen.copied;
    const bool read = !guards_.far_all_read || st_all_read(kFirst + a.seen_leg, far.copied_seq);
    const bool leaves = a.released && far.queue_empty;
    if (empty && a.far_armed && read && !leaves &&
        st_reader_allows(&far, kCookie) == ST_FAST_NONE &&
        st_room(&far, 1, kWindow, 1, 0, 0) == ST_FAST_NONE && !state.engine.closed) {
      a.phase = kOnWayToFar;
    }
    a.seen_slot = a.seen_leg = a.seen_copied = 0;
    go(state, a.phase == kPeer ? "A: the program decides against a handoff"
                               : "A: the program hands off, drops the lock");
  }

  // `locked`: any reason of the moment for TCP.
  void try_peer(State state, bool locked) {
    Sender& a = state.a;
    const st_reader peer = look_at(peer_of(state), locked);
    a.armed |= a.arming && (!guards_.peer_armed || a.peer_copied != peer_of(state).copied);
    const bool read = !guards_.peer_all_read || st_all_read(kFirst + a.written, peer.copied_seq);
    if (!a.armed || !read || (a.released && peer.queue_empty) ||
        st_reader_allows(&peer, kCookie) != ST_FAST_NONE ||
        st_room(&peer, 1, kWindow, 1, 0, 0) != ST_FAST_NONE) {
      write_tcp(state);
      return go(state, "A: the program decides for TCP");
    }
    ++a.sent;
    a.phase = kOnWayToPeer;
    go(state, "A: the program redirects, drops the lock");
  }

  void arrive(State state) {
    Reader& reader = state.a.phase == kOnWayToFar ? state.b : peer_of(state);
    if (!reader.adopted) {
      return fail("a byte was redirected to a socket that was taken out", "A: enqueues");
    }
    reader.fast.push(state.a.next++);
    if (state.a.phase == kOnWayToFar) {
      ++state.a.handed;
    }
    state.a.phase = kNotSending;
    go(state, "A: the byte is enqueued, send() returns");
  }

  // One step of a recv(). True: `*byte` was read.
  static bool step(Reader& reader, std::uint8_t* byte) {
    switch (reader.phase) {
      case kNotReceiving:
        reader.phase = reader.adopted ? kInPsock : kInTcp;
        return false;
      case kInPsock:
        if (!reader.fast.empty()) {
          *byte = reader.fast.pop();
          reader.phase = kNotReceiving;
          return true;
        }
        reader.phase = reader.tcp.empty() ? kNotReceiving : kInTcp;
        return false;
      default:
        reader.phase = kNotReceiving;
        if (reader.tcp.empty()) {
          return false;
        }
        *byte = reader.tcp.pop();
        if (*byte != kFin) {
          ++reader.copied;
        }
        return true;
    }
  }

  void receive(State state) {
    if (state.ended) {
      return;
    }
    std::uint8_t byte = 0;
    if (!step(state.b, &byte)) {
      return go(state, "B: a step of recv()");
    }
    if (byte == kFin) {
      if (state.expected != setup_.messages + 1) {
        return fail("B read the end before message " + std::to_string(state.expected),
                    "B: recv() returns 0");
      }
      state.ended = 1;
      return go(state, "B: recv() returns 0");
    }
    if (byte != state.expected) {
      return fail("B read message " + std::to_string(byte) + " instead of " +
                      std::to_string(state.expected),
                  "B: recv() returns a byte");
    }
    ++state.expected;
    go(state, "B: recv() returns a byte");
  }

  void deliver(const State& before) {
    if (!before.b.wire.empty()) {
      State state = before;
      state.b.tcp.push(state.b.wire.pop());
      go(state, "TCP delivers to B");
    }
    if (!before.ea.wire.empty()) {
      State state = before;
      state.ea.tcp.push(state.ea.wire.pop());
      go(state, "TCP delivers to E_a");
    }
  }

  // Only a socket without a psock is put in: no call of it is under way past TCP. What was known of
  // it before is gone, but for the bytes that it has redirected.
  void put_in(State state) {
    Sender& a = state.a;
    a.adopted = 1;
    a.arming = a.armed = a.peer_copied = a.released = 0;
    a.linked = a.far_armed = a.far_copied = 0;
    a.sent = guards_.keeps_sent ? a.sent : std::uint8_t{0};
    go(state, "A is put in");
  }

  void join(const State& before) {
    State state = before;
    const bool leaves = before.a.adopted && before.a.released;
    if (!before.a.adopted && !is_past_tcp(before.a)) {
      put_in(before);
    }
    if (!peer_of(state).adopted && !leaves) {
      peer_of(state).adopted = 1;
      go(state, "A's peer is put in");
      state = before;
    }
    if (before.a.adopted && peer_of(state).adopted && !before.a.arming) {
      state.a.arming = 1;
      state.a.peer_copied = peer_of(state).copied;
      go(state, "both are in");
      state = before;
    }
    if (!setup_.relay) {
      return;
    }
    if (before.b_leaving) {
      return;
    }
    if (!before.b.adopted) {
      state.b.adopted = 1;
      go(state, "B is put in");
    } else if (before.a.adopted && before.ea.adopted && !before.a.linked && !leaves) {
      state.a.linked = 1;
      state.a.far_copied = state.b.copied;
      go(state, "the relay is linked");
    }
  }

  void relay(const State& before) {
    State state = before;
    Engine& engine = state.engine;
    switch (engine.phase) {
      case kNotRelaying:
        if (state.ea.phase == kNotReceiving && !engine.buffer.empty()) {
          forward(state);
        }
        if (engine.buffer.size() < kEngineBuffer && !engine.closed) {
          state = before;
          std::uint8_t byte = 0;
          if (step(state.ea, &byte)) {
            engine.buffer.push(byte);
          }
          go(state, "engine: a step of recv()");
        }
        return;
      case kCounted:
        write_leg(state);
        engine.phase = kNotRelaying;
        return go(state, "engine: writes what it has counted");
      case kWrote:
        ++engine.slot;
        engine.phase = kNotRelaying;
        return go(state, "engine: send() has returned, adds to its slot");
      default:
        state.b.fast.push(engine.buffer.pop());
        engine.phase = guards_.counts_late ? kWrote : kNotRelaying;
        return go(state, "engine: the byte is enqueued");
    }
  }

  static void write_leg(State& state) {
    state.b.wire.push(state.engine.buffer.pop());
    ++state.engine.written;
  }

  void forward(State state) {
    Engine& engine = state.engine;
    const st_reader far = look_at(state.b, false);
    if (Queue(engine.buffer).pop() == kFin) {
      engine.closed = 1;
      write_leg(state);
      return go(state, "engine: shuts E_b down");
    }
    const bool fast = setup_.engine_sends_fast && state.a.linked &&
                      state.b.copied != state.a.far_copied &&
                      st_all_read(kFirst + engine.written, far.copied_seq);
    if (fast) {
      engine.phase = kOnWay;
      if (!guards_.counts_late) {
        ++engine.slot;
      }
      return go(state, "engine: its program redirects, drops the lock");
    }
    if (guards_.counts_late) {
      write_leg(state);
      engine.phase = kWrote;
      return go(state, "engine: send() writes to TCP");
    }
    ++engine.slot;
    engine.phase = kCounted;
    go(state, "engine: adds to its slot");
  }

  // Disarm, then look whether each reader can go (bpf/lib/release.h).
  void leave(const State& before) {
    State state = before;
    Sender& a = state.a;
    if (a.adopted && a.arming && !a.released && (!setup_.relay || !state.has_left)) {
      a.released = state.has_left = 1;
      state.b_leaving |= a.linked;
      go(state, "A is disarmed");
      state = before;
    }
    const bool leaves = a.adopted && a.released;
    if (leaves && !state.a_is_out) {
      state.a_is_out = 1;
      go(state, "A is taken out");
      state = before;
    }
    // One program of the agent runs at a time.
    if (leaves && !state.b_releasing &&
        release(state, peer_of(state), a.sent, state.releasing, state.release_count)) {
      take_out(before);
    }
    state = before;
    if (state.b_leaving && !state.releasing &&
        release(state, state.b, a.handed, state.b_releasing, state.b_count)) {
      take_out_far(before);
    }
  }

  // One of the looks, in their order. True: all are done, and the reader goes. `brought`: bytes
  // that were redirected to it, ever.
  bool release(State& state, const Reader& reader, std::uint8_t brought, std::uint8_t& look,
               std::uint8_t& count) {
    const bool is_in = state.a.adopted && state.a_is_out == 0;
    const bool knows_sender = &look == &state.releasing || guards_.linked_both_ways;
    const bool sending =
        knows_sender && is_past_tcp(state.a) && (is_in || guards_.release_sees_leavers);
    bool seen = false;
    switch (look) {
      case 0:
        count = brought;
        break;
      case 1:
      case 3:
        seen = guards_.release_sees_senders && sending;
        break;
      case 2:
        seen = guards_.release_sees_queue && !reader.fast.empty();
        break;
      default:
        if (!guards_.release_sees_counts || !knows_sender || brought == count) {
          return true;
        }
        seen = true;
    }
    look = seen ? 0 : look + 1;
    count = seen ? 0 : count;
    go(state, "release: looks");
    return false;
  }

  void take_out(State state) {
    if (!peer_of(state).fast.empty()) {
      return fail("A's peer was taken out with bytes in its queue", "release: takes out");
    }
    peer_of(state).adopted = state.a.adopted = state.a_is_out = 0;
    state.releasing = state.release_count = 0;
    go(state, "A and its peer are taken out");
  }

  void take_out_far(State state) {
    if (!state.b.fast.empty()) {
      return fail("B was taken out with bytes in its queue", "release: takes out");
    }
    state.b.adopted = state.b_leaving = state.b_releasing = state.b_count = 0;
    go(state, "B is taken out");
  }

  const Setup setup_;
  const Guards guards_;
  std::unordered_map<State, Origin, Hash> seen_;
  std::vector<const Node*> order_;
  const Node* from_ = nullptr;
  Outcome outcome_;
};

}  // namespace

Outcome explore(const Setup& setup) {
  return Explorer(setup).run();
}

}  // namespace sidetrack::model
