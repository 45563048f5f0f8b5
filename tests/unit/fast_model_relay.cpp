// SPDX-License-Identifier: Apache-2.0
// The engine, and what A's program does to send past it.
#include "tests/unit/fast_model_explorer.h"

namespace sidetrack::model {

void Explorer::look_for_handoff(State state) {
  Sender& a = state.a;
  Call& call = call_of(state);
  const int look = call.phase - kLook1 + (guards_.slot_first ? 0 : 1);
  if (look % 3 == 0) {
    call.seen_slot = state.engine.slot;
  } else if (look % 3 == 1) {
    call.seen_leg = state.engine.written;
  } else {
    call.seen_copied = state.b.copied;
  }
  if (call.phase != kLook3) {
    ++call.phase;
    return go(state, "A: the program looks, for a handoff");
  }
  call.phase = kPeer;
  Reader seen = state.b;
  seen.copied = call.seen_copied;
  const st_reader far = look_at(seen, false);
  const bool empty =
      !guards_.relay_empty || st_relay_empty(call.seen_slot, kFirst + a.written, kFirst, a.sent);
  a.far_armed |= may_arm(a.linked, guards_.far_armed, a.far_copied, seen.copied);
  const bool read = !guards_.far_all_read || st_all_read(kFirst + call.seen_leg, far.copied_seq);
  const bool leaves = a.released && far.queue_empty;
  if (empty && a.far_armed && read && !leaves && allows(a, far) && reader_allows(far) &&
      !state.engine.closed && has_room(a, far)) {
    call.phase = kOnWayToFar;
  }
  call.seen_slot = call.seen_leg = call.seen_copied = 0;
  if (call.phase == kPeer) {
    return go(state, "A: the program decides against a handoff");
  }
  redirect(state, "A: the program hands off, drops the lock");
}

void Explorer::relay(const State& before) {
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
      engine.phase = guards_.counts_redirected_late ? kWrote : kNotRelaying;
      return go(state, "engine: the byte is enqueued");
  }
}

void Explorer::write_leg(State& state) {
  state.b.wire.push(state.engine.buffer.pop());
  ++state.engine.written;
}

void Explorer::forward(State state) {
  Engine& engine = state.engine;
  const st_reader far = look_at(state.b, false);
  const std::uint8_t next = Queue(engine.buffer).pop();
  if (next >= kReset) {
    if (next == kFin && fin_waits(state.b, engine.written)) {
      return;
    }
    engine.closed = 1;
    write_leg(state);
    return go(state, "engine: ends E_b as A ended");
  }
  const bool fast = setup_.engine_sends_fast && state.a.linked &&
                    state.b.copied != state.a.far_copied &&
                    st_all_read(kFirst + engine.written, far.copied_seq);
  if (fast) {
    engine.phase = kOnWay;
    if (!guards_.counts_redirected_late) {
      ++engine.slot;
    }
    return go(state, "engine: its program redirects, drops the lock");
  }
  if (guards_.counts_plain_late) {
    write_leg(state);
    engine.phase = kWrote;
    return go(state, "engine: send() writes to TCP");
  }
  ++engine.slot;
  engine.phase = kCounted;
  go(state, "engine: adds to its slot");
}

}  // namespace sidetrack::model
