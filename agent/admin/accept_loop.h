// SPDX-License-Identifier: Apache-2.0
// Accepts connections of one acceptor for as long as the owner lives, whatever goes wrong with a
// single one. Shared by the unix and the TCP server. One thread, the io_context's.
#pragma once

#include <spdlog/spdlog.h>

#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include <boost/asio/error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/error_code.hpp>

namespace sidetrack::admin {

template <typename Protocol>
class AcceptLoop : public std::enable_shared_from_this<AcceptLoop<Protocol>> {
 public:
  using Acceptor = typename Protocol::acceptor;
  using Socket = typename Protocol::socket;

  AcceptLoop(Acceptor acceptor, std::function<void(Socket)> on_socket)
      : acceptor_(std::move(acceptor)),
        timer_(acceptor_.get_executor()),
        on_socket_(std::move(on_socket)) {}

  void next() {
    acceptor_.async_accept(
        [self = this->shared_from_this()](boost::system::error_code error, Socket socket) {
          self->on_accept(error, std::move(socket));
        });
  }

  // No callback of ours runs on_socket after this.
  void stop() {
    stopped_ = true;
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    timer_.cancel();
  }

  [[nodiscard]] const Acceptor& acceptor() const { return acceptor_; }

 private:
  void on_accept(const boost::system::error_code& error, Socket socket) {
    if (stopped_) {
      return;
    }
    if (!error) {
      on_socket_(std::move(socket));
      next();
      return;
    }
    // Out of descriptors, most likely: the connection stays in the backlog, so trying at once would
    // spin.
    spdlog::warn("component=admin event=accept_failed error=\"{}\"", error.message());
    timer_.expires_after(std::chrono::milliseconds(200));
    timer_.async_wait([self = this->shared_from_this()](boost::system::error_code) {
      if (!self->stopped_) {
        self->next();
      }
    });
  }

  Acceptor acceptor_;
  boost::asio::steady_timer timer_;
  std::function<void(Socket)> on_socket_;
  bool stopped_ = false;
};

}  // namespace sidetrack::admin
