// SPDX-License-Identifier: Apache-2.0
#include "agent/cni/cni_server.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <utility>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/cni/session.h"
#include "agent/sys/unix_listener.h"

namespace sidetrack::cni {
namespace {

using boost::system::error_code;

// More than a node starts pods at once; what comes above waits in the backlog.
constexpr std::size_t kMaxSessions = 128;
constexpr std::chrono::milliseconds kAcceptPause{100};

}  // namespace

struct Server::Impl final : SessionHost, std::enable_shared_from_this<Server::Impl> {
  Impl(boost::asio::io_context& io, Handler& asked, std::function<void(const Served&)> served,
       const Timings& times)
      : context(io),
        handler_(asked),
        on_served(std::move(served)),
        timing(times),
        listener(io),
        accept_pause(io) {}

  void wait_for_plugin();
  void accept_all();
  void pause();
  void stop();

  [[nodiscard]] Handler& handler() override { return handler_; }
  [[nodiscard]] const Timings& timings() const override { return timing; }
  void on_answered(const Served& served) override {
    if (on_served) {
      on_served(served);
    }
  }
  void on_ended(const Session& session) override;

  boost::asio::io_context& context;
  Handler& handler_;
  std::function<void(const Served&)> on_served;
  Timings timing;
  boost::asio::posix::stream_descriptor listener;
  boost::asio::steady_timer accept_pause;
  std::string path;
  bool stopped = false;
  bool full = false;                               // nobody waits on the listener
  std::vector<std::shared_ptr<Session>> sessions;  // shared with what waits on their sockets
};

void Server::Impl::wait_for_plugin() {
  listener.async_wait(boost::asio::posix::descriptor_base::wait_read,
                      [weak = weak_from_this()](const error_code& error) {
                        const auto self = weak.lock();
                        if (self && !error && !self->stopped) {
                          self->accept_all();
                        }
                      });
}

// Out of files: the connection stays in the backlog, and polling would spin.
void Server::Impl::pause() {
  accept_pause.expires_after(kAcceptPause);
  accept_pause.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (self && !error && !self->stopped) {
      self->wait_for_plugin();
    }
  });
}

void Server::Impl::accept_all() {
  while (sessions.size() < kMaxSessions) {
    auto socket = sys::accept_unix(listener.native_handle());
    if (!socket) {
      spdlog::warn("component=cni event=accept_failed error=\"{}\"", socket.error().message);
      pause();
      return;
    }
    if (!socket->valid()) {
      wait_for_plugin();
      return;
    }
    const auto peer = sys::peer_credentials(socket->get());
    if (!peer || (peer->uid != 0 && peer->uid != ::geteuid())) {
      spdlog::warn("component=cni event=peer_rejected uid={}",
                   peer ? static_cast<std::int64_t>(peer->uid) : -1);
      continue;
    }
    sessions.push_back(std::make_shared<Session>(context, std::move(*socket), *this));
    sessions.back()->start();
  }
  full = true;
}

void Server::Impl::on_ended(const Session& session) {
  std::erase_if(sessions, [&session](const auto& other) { return other.get() == &session; });
  if (std::exchange(full, false)) {
    accept_all();
  }
}

void Server::Impl::stop() {
  if (std::exchange(stopped, true)) {
    return;
  }
  if (listener.is_open()) {
    ::unlink(path.c_str());
  }
  error_code ignored;
  listener.close(ignored);
  accept_pause.cancel();
  for (const auto& session : std::exchange(sessions, {})) {
    session->abandon();
  }
}

Server::Server(boost::asio::io_context& context, Handler& handler,
               std::function<void(const Served&)> on_served, const Timings& timings)
    : impl_(std::make_shared<Impl>(context, handler, std::move(on_served), timings)) {}

Server::~Server() {
  impl_->stop();
}

Result<void> Server::listen(const std::string& path) {
  auto socket = sys::listen_unix(path);
  if (!socket) {
    return socket.error().within("cni socket");
  }
  error_code error;
  impl_->listener.assign(socket->get(), error);
  if (error) {
    return make_error(ErrorCode::kIo, "cni socket " + path + ": " + error.message());
  }
  static_cast<void>(socket->release());
  impl_->path = path;
  impl_->wait_for_plugin();
  return {};
}

void Server::stop() {
  impl_->stop();
}

std::size_t Server::connections() const {
  return impl_->sessions.size();
}

}  // namespace sidetrack::cni
