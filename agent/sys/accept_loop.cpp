// SPDX-License-Identifier: Apache-2.0
#include "agent/sys/accept_loop.h"

#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <utility>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "sidetrack/log/log.h"

namespace sidetrack::sys {
namespace {

using boost::system::error_code;

constexpr int kMostAtOnce = 64;
constexpr std::chrono::milliseconds kPause{100};

// The next connection; an invalid descriptor when there is none now.
Result<UniqueFd> accept_next(int listener) {
  UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.valid()) {
    return fd;
  }
  const int saved = errno;
  if (saved == EAGAIN || saved == EWOULDBLOCK || saved == EINTR || saved == ECONNABORTED) {
    return UniqueFd();
  }
  return errno_error("accept", saved);
}

}  // namespace

struct AcceptLoop::Impl : std::enable_shared_from_this<AcceptLoop::Impl> {
  Impl(boost::asio::io_context& context, std::string whose, OnConnection call)
      : component(std::move(whose)),
        on_connection(std::move(call)),
        listener(context),
        pause(context) {}

  void wait();
  void wait_a_while();
  void accept_all();

  std::string component;
  OnConnection on_connection;
  boost::asio::posix::stream_descriptor listener;
  boost::asio::steady_timer pause;
  bool stopped = false;
  bool held = false;  // nobody waits on the listener
};

void AcceptLoop::Impl::wait() {
  listener.async_wait(boost::asio::posix::descriptor_base::wait_read,
                      [weak = weak_from_this()](const error_code& error) {
                        const auto self = weak.lock();
                        if (self && !error && !self->stopped) {
                          self->accept_all();
                        }
                      });
}

// Out of files: the connection stays in the backlog, and polling would spin.
void AcceptLoop::Impl::wait_a_while() {
  pause.expires_after(kPause);
  pause.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (self && !error && !self->stopped) {
      self->wait();
    }
  });
}

void AcceptLoop::Impl::accept_all() {
  const auto self = shared_from_this();  // on_connection may destroy the owner
  for (int i = 0; !stopped && !held; ++i) {
    if (i == kMostAtOnce) {
      wait();  // others on this loop have their turn
      return;
    }
    auto connection = accept_next(listener.native_handle());
    if (!connection) {
      log_event(LogLevel::kWarn, component, "accept_failed",
                {{"error", connection.error().message}});
      wait_a_while();
      return;
    }
    if (!connection->valid()) {
      wait();
      return;
    }
    held = on_connection(std::move(*connection)) == Accepting::kHold;
  }
}

AcceptLoop::AcceptLoop(boost::asio::io_context& context, std::string component,
                       OnConnection on_connection)
    : impl_(std::make_shared<Impl>(context, std::move(component), std::move(on_connection))) {}

AcceptLoop::~AcceptLoop() {
  stop();
}

Result<void> AcceptLoop::start(UniqueFd listener) {
  error_code error;
  impl_->listener.assign(listener.get(), error);
  if (error) {
    return Error{ErrorCode::kIo, error.value(), "watch the listener: " + error.message()};
  }
  static_cast<void>(listener.release());
  impl_->wait();
  return {};
}

void AcceptLoop::resume() {
  if (std::exchange(impl_->held, false)) {
    impl_->accept_all();
  }
}

void AcceptLoop::stop() {
  impl_->stopped = true;
  error_code ignored;
  impl_->listener.close(ignored);
  impl_->pause.cancel();
}

}  // namespace sidetrack::sys
