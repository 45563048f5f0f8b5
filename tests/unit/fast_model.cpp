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
    for (thread_ = 0; thread_ < threads(); ++thread_) {
      send(state);
    }
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
  state.a.call[1].next = kSecond;
  if (setup_.was_out) {
    state.a.call[0].next = state.expected[0] = 3;
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
  outcome_.overflows |= ends && state.a.overflown != 0;
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
  call_of(state).phase = kNotSending;
  if (state.a.aborted) {
    state.closed = 1;  // it fails, and A sends no more
    return;
  }
  peer_of(state).wire.push(call_of(state).next++);
  ++state.a.written;
}

bool Explorer::fin_waits(const Reader& reader, std::uint8_t written) const {
  return guards_.fin_waits &&
         st_fin_waits(reader.fast.empty() ? 1 : 0, kFirst + written, kFirst + reader.copied) != 0;
}

// A: close(), when no thread is in a call any more. Its FIN is sent when it may be.
void Explorer::close(State state) {
  if (thread_ != 0 || state.a.call[0].phase != kNotSending ||
      state.a.call[1].phase != kNotSending || !has_sent_all(state, 0) || !has_sent_all(state, 1) ||
      state.closed || state.a.aborted || fin_waits(peer_of(state), state.a.written)) {
    return;
  }
  state.closed = 1;
  peer_of(state).wire.push(kFin);
  ++state.a.written;
  go(state, "A: close()");
}

void Explorer::send(const State& before) {
  State state = before;
  const Sender& a = state.a;
  Call& call = call_of(state);
  switch (call.phase) {
    case kNotSending:
      close(before);
      if (!has_sent_all(state, thread_) && !state.closed) {
        call.phase = !a.adopted || state.a_is_out ? kPlain : kWaits;
        if (!setup_.two_threads && call.phase == kWaits) {
          call.phase = a.linked ? kLook1 : kPeer;
        }
        go(state, "A: send() begins");
      }
      return;
    case kPlain:
      if (!a.is_locked()) {
        write_tcp(state);
        go(state, "A: a plain send() writes to TCP");
      }
      return;
    case kWaits:
      if (!a.is_locked()) {
        call.phase = a.linked ? kLook1 : kPeer;
        go(state, "A: send() has the lock");
      }
      return;
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

// The last thing that is asked: what waits is counted anew where the reader's queue is empty.
bool Explorer::has_room(Sender& a, const st_reader& reader) const {
  if (setup_.room == 0) {
    return st_room(&reader, 1, kWindow, 1, 0, 0) == ST_FAST_NONE;
  }
  a.waiting = reader.queue_empty ? std::uint8_t{0} : a.waiting;
  const auto room = static_cast<std::uint32_t>(setup_.room);
  const bool by_messages = setup_.bound == Bound::kMessages;
  const bool free =
      st_room(&reader, 1, by_messages ? kWindow : room, setup_.bound == Bound::kCharged ? 1 : 0,
              (by_messages ? ST_FAST_MESSAGES - room : 0) + a.waiting, a.waiting) == ST_FAST_NONE;
  a.overflown = free ? a.overflown : std::uint8_t{1};
  a.waiting = static_cast<std::uint8_t>(a.waiting + (free ? 1 : 0));
  return free || !guards_.room;
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
      !reader_allows(peer) || !has_room(a, peer)) {
    write_tcp(state);
    return go(state, "A: the program decides for TCP");
  }
  ++a.sent;
  call_of(state).phase = kOnWayToPeer;
  redirect(state, "A: the program redirects, drops the lock");
}

void Explorer::arrive(State state) {
  Call& call = call_of(state);
  Reader& reader = call.phase == kOnWayToFar ? state.b : peer_of(state);
  if (!reader.adopted) {
    return fail(Wrong::kLost, "a byte was redirected to a socket that was taken out",
                "A: enqueues");
  }
  reader.fast.push(call.next++);
  // What another thread has on its way is not counted by all.
  if (setup_.room != 0 && reader.fast.size() >= setup_.room + static_cast<int>(threads())) {
    return fail(Wrong::kTooMany, "more waits past TCP than there is room for", "A: enqueues");
  }
  if (call.phase == kOnWayToFar) {
    ++state.a.handed;
  }
  call.phase = kNotSending;
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
    for (std::size_t thread = 0; thread < threads(); ++thread) {
      if (state.expected[thread] != first_of(thread) + setup_.messages) {
        return fail(Wrong::kEnd,
                    "B read the end before message " + std::to_string(state.expected[thread]),
                    "B: recv() returns 0");
      }
    }
    state.ended = kFin;
    return go(state, "B: recv() returns 0");
  }
  if (byte == kReset) {
    state.ended = kReset;
    return go(state, "B: recv() fails");
  }
  std::uint8_t& expected = state.expected[byte < kSecond ? 0 : 1];
  if (byte != expected) {
    return fail(
        Wrong::kOrder,
        "B read message " + std::to_string(byte) + " instead of " + std::to_string(expected),
        "B: recv() returns a byte");
  }
  ++expected;
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
  if (byte == kFin && !reader.fast.empty() && !reader.tcp.empty()) {
    return fail(Wrong::kEndKnown, "the end is known, and bytes of both kinds wait", action);
  }
  reader.tcp.push(byte);
  reader.reset |= byte == kReset;
  if (setup_.switches && &reader == &state.b && byte < kReset && !reader.fast.empty()) {
    return fail(Wrong::kHidden, "MSG_PEEK does not see message " + std::to_string(byte), action);
  }
  go(state, action);
}

// Another thread, or the kernel, resets A's connection. A call that decides has the lock.
void Explorer::abort(State state) {
  if (state.a.aborted || state.closed || state.a.is_locked()) {
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
