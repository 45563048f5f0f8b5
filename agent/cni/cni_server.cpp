// SPDX-License-Identifier: Apache-2.0
#include "agent/cni/cni_server.h"

#include <algorithm>
#include <utility>

#include "agent/cni/session.h"
#include "agent/sys/unix_server.h"

namespace sidetrack::cni {
namespace {

using sys::Accepting;

// More than a node starts pods at once; what comes above waits in the backlog.
constexpr std::size_t kMaxSessions = 128;

}  // namespace

Timings timings_for(std::chrono::milliseconds timeout) {
  Timings timings;
  timings.answer = std::max(timings.answer, timeout * 2);
  return timings;
}

struct Server::Impl final : SessionHost {
  Impl(boost::asio::io_context& io, Handler& asked, std::function<void(const Served&)> served,
       const Timings& times)
      : context(io),
        handler_(asked),
        on_served(std::move(served)),
        timing(times),
        server(io, "cni", [this](UniqueFd socket, const sys::PeerCredentials& /*peer*/) {
          return on_plugin(std::move(socket));
        }) {}

  [[nodiscard]] Accepting on_plugin(UniqueFd socket);
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
  sys::UnixServer server;
  std::vector<std::shared_ptr<Session>> sessions;  // shared with what waits on their sockets
};

Accepting Server::Impl::on_plugin(UniqueFd socket) {
  sessions.push_back(std::make_shared<Session>(context, std::move(socket), *this));
  sessions.back()->start();
  return sessions.size() < kMaxSessions ? Accepting::kMore : Accepting::kHold;
}

void Server::Impl::on_ended(const Session& session) {
  std::erase_if(sessions, [&session](const auto& other) { return other.get() == &session; });
  server.resume();
}

void Server::Impl::stop() {
  server.stop();
  for (const auto& session : std::exchange(sessions, {})) {
    session->abandon();
  }
}

Server::Server(boost::asio::io_context& context, Handler& handler,
               std::function<void(const Served&)> on_served, const Timings& timings)
    : impl_(std::make_unique<Impl>(context, handler, std::move(on_served), timings)) {}

Server::~Server() {
  impl_->stop();
}

Result<void> Server::listen(const std::string& path) {
  auto listening = impl_->server.listen(path);
  return listening ? listening : listening.error().within("cni socket");
}

void Server::stop() {
  impl_->stop();
}

std::size_t Server::connections() const {
  return impl_->sessions.size();
}

}  // namespace sidetrack::cni
