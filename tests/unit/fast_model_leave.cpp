// SPDX-License-Identifier: Apache-2.0
// Sockets are put in and taken out.
#include "tests/unit/fast_model_explorer.h"

namespace sidetrack::model {

// Only a socket without a psock is put in: no call of it is under way past TCP. What was known of
// it before is gone, but for the bytes that it has redirected.
void Explorer::put_in(State state) {
  Sender& a = state.a;
  a.adopted = 1;
  a.arming = a.armed = a.peer_copied = a.released = 0;
  a.linked = a.far_armed = a.far_copied = 0;
  a.sent = guards_.keeps_sent ? a.sent : std::uint8_t{0};
  go(state, "A is put in");
}

void Explorer::join(const State& before) {
  State state = before;
  const bool leaves = before.a.adopted && before.a.released;
  if (!before.a.adopted && !before.a.is_past_tcp()) {
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

// Disarm, then look whether each reader can go (bpf/lib/release.h).
void Explorer::leave(const State& before) {
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
bool Explorer::release(State& state, const Reader& reader, std::uint8_t brought, std::uint8_t& look,
                       std::uint8_t& count) {
  const bool is_in = state.a.adopted && state.a_is_out == 0;
  const bool knows_sender = &look == &state.releasing || guards_.linked_both_ways;
  const bool sending =
      knows_sender && state.a.is_past_tcp() && (is_in || guards_.release_sees_leavers);
  std::uint64_t fact = 0;
  switch (st_drain_asks(look)) {
    case ST_DRAIN_SENDING:
      fact = guards_.release_sees_senders && sending;
      break;
    case ST_DRAIN_WAITING:
      fact = guards_.release_sees_queue && !reader.fast.empty();
      break;
    case ST_DRAIN_BROUGHT:
      fact = look == 0 || (guards_.release_sees_counts && knows_sender) ? brought : count;
  }
  count = look == 0 ? brought : count;
  const bool passes = st_drain_passes(look, fact, count) != 0;
  if (passes && look + 1 == ST_DRAIN_STEPS) {
    return true;
  }
  look = passes ? look + 1 : 0;
  count = passes ? count : 0;
  go(state, "release: looks");
  return false;
}

void Explorer::take_out(State state) {
  if (!peer_of(state).fast.empty()) {
    return fail(Wrong::kLost, "A's peer was taken out with bytes in its queue",
                "release: takes out");
  }
  peer_of(state).adopted = state.a.adopted = state.a_is_out = 0;
  state.releasing = state.release_count = 0;
  go(state, "A and its peer are taken out");
}

void Explorer::take_out_far(State state) {
  if (!state.b.fast.empty()) {
    return fail(Wrong::kLost, "B was taken out with bytes in its queue", "release: takes out");
  }
  state.b.adopted = state.b_leaving = state.b_releasing = state.b_count = 0;
  go(state, "B is taken out");
}

}  // namespace sidetrack::model
