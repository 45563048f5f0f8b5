// SPDX-License-Identifier: Apache-2.0
// Accepts the connections of one listening socket of any family for as long as its owner lives,
// whatever goes wrong with a single one. Not the owner of what it accepted. One thread (the
// io_context's).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::sys {

// What comes next: more connections, or none before resume(); they wait in the backlog meanwhile.
enum class Accepting : std::uint8_t { kMore, kHold };

class AcceptLoop {
 public:
  // Given each connection, CLOEXEC and non-blocking. Runs from the loop or inside of resume().
  using OnConnection = std::function<Accepting(UniqueFd)>;

  // `component`: whose lines the log's are.
  AcceptLoop(boost::asio::io_context& context, std::string component, OnConnection on_connection);
  ~AcceptLoop();
  AcceptLoop(const AcceptLoop&) = delete;
  AcceptLoop& operator=(const AcceptLoop&) = delete;

  // `listener` listens and is non-blocking.
  [[nodiscard]] Result<void> start(UniqueFd listener);
  // After kHold; does nothing otherwise.
  void resume();
  // No connection is given out after it.
  void stop();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with what waits on the loop
};

}  // namespace sidetrack::sys
