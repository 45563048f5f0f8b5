// SPDX-License-Identifier: Apache-2.0
// The search of fast_model.h: every state that can be reached, each once, the nearest first. What A
// and B do is in fast_model.cpp, the engine and the handoff in fast_model_relay.cpp, putting in and
// taking out in fast_model_leave.cpp.
#pragma once

#include <unordered_map>
#include <utility>

#include "tests/unit/fast_model.h"
#include "tests/unit/fast_model_state.h"

namespace sidetrack::model {

class Explorer {
 public:
  explicit Explorer(const Setup& setup) : setup_(setup), guards_(setup.guards) {}

  Outcome run();

 private:
  struct Origin {
    const std::pair<const State, Origin>* from = nullptr;
    const char* action = "";
  };
  using Node = std::pair<const State, Origin>;

  [[nodiscard]] State begin() const;
  void add(const State& state, const Node* from, const char* action);
  void go(const State& state, const char* action) { add(state, from_, action); }
  void fail(Wrong wrong, const std::string& what, const char* action);
  void redirect(const State& state, const char* action);

  Reader& peer_of(State& state) const { return setup_.relay ? state.ea : state.b; }
  // Of the thread whose step is tried.
  Call& call_of(State& state) const { return state.a.call[thread_]; }
  // Everything of this thread is sent.
  [[nodiscard]] bool has_sent_all(const State& state, std::size_t thread) const {
    return state.a.call[thread].next ==
           first_of(thread) + (thread < threads() ? setup_.messages : 0);
  }
  static constexpr int first_of(std::size_t thread) { return thread == 0 ? 1 : kSecond; }
  [[nodiscard]] std::size_t threads() const { return setup_.two_threads ? 2 : 1; }
  // One step of a recv(). True: `*byte` was read.
  static bool step(Reader& reader, std::uint8_t* byte);

  // Whether the FIN behind so many bytes of TCP is not sent yet.
  [[nodiscard]] bool fin_waits(const Reader& reader, std::uint8_t written) const;
  void close(State state);
  void send(const State& before);
  void write_tcp(State& state) const;
  [[nodiscard]] bool allows(const Sender& a, const st_reader& reader) const;
  [[nodiscard]] bool reader_allows(st_reader reader) const;
  [[nodiscard]] bool has_room(Sender& a, const st_reader& reader) const;
  // `locked`: any reason of the moment for TCP.
  void try_peer(State state, bool locked);
  void arrive(State state);
  void receive(State state);
  void deliver(const State& before);
  void deliver_to(State& state, Reader& reader, const char* action);
  void abort(State state);
  void deny(State state);

  void look_for_handoff(State state);
  void relay(const State& before);
  void forward(State state);
  static void write_leg(State& state);

  void put_in(State state);
  void join(const State& before);
  void leave(const State& before);
  // One of the looks, in their order. True: all are done, and the reader goes. `brought`: bytes
  // that were redirected to it, ever.
  bool release(State& state, const Reader& reader, std::uint8_t brought, std::uint8_t& look,
               std::uint8_t& count);
  void take_out(State state);
  void take_out_far(State state);

  const Setup setup_;
  const Guards guards_;
  std::unordered_map<State, Origin, Hash> seen_;
  std::vector<const Node*> order_;
  const Node* from_ = nullptr;
  std::size_t thread_ = 0;
  Outcome outcome_;
};

}  // namespace sidetrack::model
