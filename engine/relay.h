// SPDX-License-Identifier: Apache-2.0
// Moves bytes from one socket of a connection to the other, FIN and RST included. No epoll, no
// connect, no clock: the worker calls it when a socket is ready. One per worker, for the scratch
// buffer that all of its connections share.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "engine/connection.h"
#include "engine/counters.h"

namespace sidetrack::engine {

enum class Step : std::uint8_t {
  kWait,    // until one of the sockets is ready again
  kMore,    // its share of this turn is used up, there is more to do
  kDone,    // both ends have finished
  kBroken,  // one end was reset and has given all that it had
};

class Relay {
 public:
  // `buffer_bytes` bounds what one connection holds in user space, both directions together.
  Relay(std::size_t buffer_bytes, Counters& counters, const Links& links);

  // Moves what `from` has to the other side, as far as it goes.
  [[nodiscard]] Step pump(Connection& connection, SideIndex from);
  // Whether the last pump() got bytes into the other socket: it is connected then.
  [[nodiscard]] bool delivered() const { return delivered_; }
  // errno of the last kBroken.
  [[nodiscard]] int error() const { return error_; }
  // Takes the bytes that wait in `pending` off the count.
  void forget(const Connection& connection);

 private:
  enum class Sent : std::uint8_t { kAll, kBlocked, kFailed };

  [[nodiscard]] Sent flush(Connection& connection, SideIndex from);
  [[nodiscard]] Sent send_scratch(Connection& connection, SideIndex from, std::size_t size);
  void took(Connection& connection, SideIndex from, ssize_t sent);
  void keep(Side& to, const char* bytes, std::size_t size);
  [[nodiscard]] Step finish(Connection& connection, SideIndex from);
  [[nodiscard]] Step break_off(Connection& connection, SideIndex side);

  std::size_t scratch_bytes_;
  std::unique_ptr<char[]> scratch_;
  Counters& counters_;
  const Links& links_;
  int error_ = 0;
  bool delivered_ = false;
};

}  // namespace sidetrack::engine
