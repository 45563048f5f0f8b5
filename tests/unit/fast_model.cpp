// SPDX-License-Identifier: Apache-2.0
// The search, and what A and B do.
#include "tests/unit/fast_model.h"

#include <algorithm>

#include "tests/unit/fast_model_explorer.h"

namespace sidetrack::model {

Outcome Explorer::run() {
  add(begin(), nullptr, "start");
  for (std::size_t i = 0; i < order_.size() && outcome_.wrong == Wrong::kNothing; ++i) {
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
    if (setup_.aborts) {
      abort(state);
    }
    if (setup_.switches) {
      deny(state);
    }
  }
  outcome_.states = order_.size();
  return outcome_;
}

State Explorer::begin() const {
  State state;
  if (setup_.was_out) {
    state.a.next = state.expected = 3;
    state.a.written = state.a.sent = state.ea.copied = 1;
    state.engine.slot = state.engine.written = state.b.copied = 2;
    state.has_left = 1;
  }
  return state;
}

void Explorer::add(const State& state, const Node* from, const char* action) {
  const auto [node, fresh] = seen_.try_emplace(state, Origin{.from = from, .action = action});
  if (!fresh) {
    return;
  }
  order_.push_back(&*node);
  const bool ends = state.ended == kFin;
  outcome_.ends |= ends;
  outcome_.skips_tcp |= ends && state.a.sent + state.a.handed != 0;
  outcome_.hands_off |= ends && state.a.handed != 0;
  outcome_.resets |= state.ended == kReset && state.a.sent + state.a.handed != 0;
}

void Explorer::fail(Wrong wrong, const std::string& what, const char* action) {
  outcome_.wrong = wrong;
  outcome_.what = what;
  outcome_.run = {action};
  for (const Node* node = from_; node != nullptr; node = node->second.from) {
    outcome_.run.emplace_back(node->second.action);
  }
  std::reverse(outcome_.run.begin(), outcome_.run.end());
}

void Explorer::write_tcp(State& state) const {
  state.a.phase = kNotSending;
  if (state.a.aborted) {
    state.closed = 1;  // it fails, and A sends no more
    return;
  }
  peer_of(state).wire.push(state.a.next++);
  ++state.a.written;
}

void Explorer::send(const State& before) {
  State state = before;
  Sender& a = state.a;
  switch (a.phase) {
    case kNotSending:
      if (a.next <= setup_.messages && !state.closed) {
        a.phase = !a.adopted || state.a_is_out ? kPlain : a.linked ? kLook1 : kPeer;
        return go(state, "A: send() begins");
      }
      if (!state.closed && !a.aborted) {
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
      if (!setup_.switches) {
        try_peer(before, true);
      }
      return;
    default:
      return arrive(state);
  }
}

// What is asked for the peer and for the far reader alike, beside the reader's own state.
bool Explorer::allows(const Sender& a, const st_reader& reader) const {
  const st_sender sender = look_at(a);
  if (guards_.sender_allows && st_sender_allows(&sender) != ST_FAST_NONE) {
    return false;
  }
  return guards_.denied_now ? st_denied_now(a.denied, &reader) == 0 : a.denied == 0;
}

bool Explorer::reader_allows(st_reader reader) const {
  reader.adopted = guards_.reader_adopted ? reader.adopted : std::uint8_t{1};
  reader.state = guards_.reader_state ? reader.state : std::uint8_t{ST_TCP_ESTABLISHED};
  return st_reader_allows(&reader, kCookie) == ST_FAST_NONE;
}

void Explorer::redirect(const State& state, const char* action) {
  if (state.a.aborted) {
    return fail(Wrong::kAfterReset, "A sent after it was reset", action);
  }
  go(state, action);
}

void Explorer::try_peer(State state, bool locked) {
  Sender& a = state.a;
  const st_reader peer = look_at(peer_of(state), locked);
  a.armed |= may_arm(a.arming, guards_.peer_armed, a.peer_copied, peer_of(state).copied);
  const bool read = !guards_.peer_all_read || st_all_read(kFirst + a.written, peer.copied_seq);
  if (!a.armed || !read || (a.released && peer.queue_empty) || !allows(a, peer) ||
      !reader_allows(peer) || st_room(&peer, 1, kWindow, 1, 0, 0) != ST_FAST_NONE) {
    write_tcp(state);
    return go(state, "A: the program decides for TCP");
  }
  ++a.sent;
  a.phase = kOnWayToPeer;
  redirect(state, "A: the program redirects, drops the lock");
}

void Explorer::arrive(State state) {
  Reader& reader = state.a.phase == kOnWayToFar ? state.b : peer_of(state);
  if (!reader.adopted) {
    return fail(Wrong::kLost, "a byte was redirected to a socket that was taken out",
                "A: enqueues");
  }
  reader.fast.push(state.a.next++);
  if (state.a.phase == kOnWayToFar) {
    ++state.a.handed;
  }
  state.a.phase = kNotSending;
  go(state, "A: the byte is enqueued, send() returns");
}

bool Explorer::step(Reader& reader, std::uint8_t* byte) {
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
      if (*byte < kReset) {
        ++reader.copied;
      }
      return true;
  }
}

void Explorer::receive(State state) {
  if (state.ended) {
    return;
  }
  std::uint8_t byte = 0;
  if (!step(state.b, &byte)) {
    return go(state, "B: a step of recv()");
  }
  if (byte == kFin) {
    if (state.expected != setup_.messages + 1) {
      return fail(Wrong::kEnd, "B read the end before message " + std::to_string(state.expected),
                  "B: recv() returns 0");
    }
    state.ended = kFin;
    return go(state, "B: recv() returns 0");
  }
  if (byte == kReset) {
    state.ended = kReset;
    return go(state, "B: recv() fails");
  }
  if (byte != state.expected) {
    return fail(
        Wrong::kOrder,
        "B read message " + std::to_string(byte) + " instead of " + std::to_string(state.expected),
        "B: recv() returns a byte");
  }
  ++state.expected;
  go(state, "B: recv() returns a byte");
}

void Explorer::deliver(const State& before) {
  State state = before;
  deliver_to(state, state.b, "TCP delivers to B");
  state = before;
  deliver_to(state, state.ea, "TCP delivers to E_a");
}

void Explorer::deliver_to(State& state, Reader& reader, const char* action) {
  if (reader.wire.empty()) {
    return;
  }
  const std::uint8_t byte = reader.wire.pop();
  reader.tcp.push(byte);
  reader.reset |= byte == kReset;
  if (setup_.switches && &reader == &state.b && byte < kReset && !reader.fast.empty()) {
    return fail(Wrong::kHidden, "MSG_PEEK does not see message " + std::to_string(byte), action);
  }
  go(state, action);
}

// Another thread, or the kernel, resets A's connection. A call that decides has the lock.
void Explorer::abort(State state) {
  const std::uint8_t phase = state.a.phase;
  const bool decides = phase == kPeer || (phase >= kLook1 && phase <= kLook3);
  if (state.a.aborted || state.closed || decides) {
    return;
  }
  state.a.aborted = 1;
  peer_of(state).wire.push(kReset);
  go(state, "A is reset");
}

void Explorer::deny(State state) {
  state.a.denied = state.a.denied == ST_FAST_NONE ? ST_FAST_POD_OFF : ST_FAST_NONE;
  go(state, "policy changes");
}

Outcome explore(const Setup& setup) {
  return Explorer(setup).run();
}

}  // namespace sidetrack::model
