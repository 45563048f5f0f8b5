// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 on accepted stream sockets, the same for the admin socket and the TCP endpoint: bounded
// in connections, request size and idle time. Knows nothing of what is served: a Handler answers.
// One thread, the io_context's.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

#include <boost/asio/io_context.hpp>

#include "agent/admin/request.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::admin {

struct Limits {
  std::size_t connections = 64;
  std::size_t header_bytes = 8192;
  std::size_t body_bytes = 4096;
  std::chrono::milliseconds idle{10'000};  // to send a whole request, and to take a whole answer
};

// The sessions of one listener. Sessions live on their own until they end; destroying Sessions
// closes them all.
class Sessions {
 public:
  // `family`: of the sockets, as for socket().
  Sessions(boost::asio::io_context& context, int family, Handler handler, Limits limits);
  ~Sessions();
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  // Serves the socket; past the limit of connections it is answered 503 and closed.
  void start(UniqueFd socket);
  [[nodiscard]] std::size_t count() const;

 private:
  struct State;
  class Session;
  boost::asio::io_context& context_;
  int family_;
  std::shared_ptr<State> state_;  // shared with the sessions, which may outlive us by one callback
};

}  // namespace sidetrack::admin
