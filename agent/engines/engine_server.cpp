// SPDX-License-Identifier: Apache-2.0
#include "agent/engines/engine_server.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <boost/asio/post.hpp>

#include "agent/engines/messages.h"
#include "agent/engines/session.h"
#include "agent/sys/unix_server.h"
#include "sidetrack/log/log.h"

namespace sidetrack::engines {
namespace {

using sys::Accepting;

// Registered or not; more than engines can ever be, and few enough to be no burden.
constexpr std::size_t kMaxSessions = 2 * ST_MAX_ENGINES;

}  // namespace

struct EngineServer::Impl final : SessionHost, std::enable_shared_from_this<EngineServer::Impl> {
  Impl(boost::asio::io_context& io, Callbacks calls, const Timings& times)
      : context(io),
        callbacks(std::move(calls)),
        timing(times),
        server(io, "engines", [this](UniqueFd socket, const sys::PeerCredentials& peer) {
          return on_engine(std::move(socket), peer);
        }) {}

  [[nodiscard]] Accepting on_engine(UniqueFd socket, const sys::PeerCredentials& peer);
  void stop();
  [[nodiscard]] Session* find(SessionId id) const;
  // Runs `event` from the loop, so that the agent's callbacks never run inside of ours, unless the
  // server stops before.
  template <typename F>
  void later(F event);

  [[nodiscard]] const Desired& desired() const override { return state; }
  [[nodiscard]] const Timings& timings() const override { return timing; }
  [[nodiscard]] Result<Admission> admit(std::int64_t pid, const std::string& build) override;
  [[nodiscard]] Result<UniqueFd> open_netns(std::uint64_t netns_cookie) override;
  void on_listening(SessionId session, std::uint64_t netns_cookie) override;
  void on_failed(SessionId session, std::uint64_t netns_cookie, const std::string& reason) override;
  void on_draining(SessionId session) override;
  void on_link(SessionId session, const Link& link) override;
  void on_ended(Session& session, const std::string& reason) override;

  boost::asio::io_context& context;
  Callbacks callbacks;
  Timings timing;
  sys::UnixServer server;
  bool stopped = false;
  Desired state;
  SessionId last_id = 0;
  std::vector<std::shared_ptr<Session>>
      sessions;  // shared with the handlers that wait on their sockets
};

template <typename F>
void EngineServer::Impl::later(F event) {
  boost::asio::post(context, [weak = weak_from_this(), event = std::move(event)] {
    const auto self = weak.lock();
    if (self && !self->stopped) {
      event(*self);
    }
  });
}

Session* EngineServer::Impl::find(SessionId id) const {
  const auto found = std::find_if(sessions.begin(), sessions.end(), [id](const auto& session) {
    return session->registered() && session->info().id == id;
  });
  return found == sessions.end() ? nullptr : found->get();
}

Accepting EngineServer::Impl::on_engine(UniqueFd socket, const sys::PeerCredentials& peer) {
  if (sessions.size() >= kMaxSessions) {
    log_event(LogLevel::kWarn, "engines", "peer_rejected",
              {{"pid", peer.pid}, {"reason", "too many sessions"}});
    return Accepting::kMore;
  }
  sessions.push_back(std::make_shared<Session>(context, std::move(socket), peer, *this));
  sessions.back()->start();
  return Accepting::kMore;
}

void EngineServer::Impl::stop() {
  if (std::exchange(stopped, true)) {
    return;
  }
  server.stop();
  for (const auto& session : std::exchange(sessions, {})) {
    session->abandon();
  }
}

Result<SessionHost::Admission> EngineServer::Impl::admit(std::int64_t pid,
                                                         const std::string& build) {
  const SessionId id = ++last_id;
  auto welcome = callbacks.on_hello(id, pid, build);
  if (!welcome) {
    return welcome.error();
  }
  log_event(LogLevel::kInfo, "engines", "engine_registered",
            {{"session", id}, {"pid", pid}, {"version", build}, {"slot", welcome->slot}});
  return Admission{.id = id, .welcome = *welcome};
}

Result<UniqueFd> EngineServer::Impl::open_netns(std::uint64_t netns_cookie) {
  auto fd = callbacks.open_netns(netns_cookie);
  if (fd && !fd->valid()) {
    return make_error(ErrorCode::kInternal, "open netns: no descriptor");
  }
  return fd;
}

void EngineServer::Impl::on_listening(SessionId session, std::uint64_t netns_cookie) {
  later([session, netns_cookie](Impl& self) {
    const Session* const found = self.find(session);
    const PodListeners* const now = found == nullptr ? nullptr : found->listeners(netns_cookie);
    if (now != nullptr) {
      const PodListeners copy = *now;  // the callback may remove the pod
      self.callbacks.on_listening(session, netns_cookie, copy);
    }
  });
}

void EngineServer::Impl::on_failed(SessionId session, std::uint64_t netns_cookie,
                                   const std::string& reason) {
  later([session, netns_cookie, reason](Impl& self) {
    if (self.find(session) != nullptr && self.state.pods.contains(netns_cookie)) {
      self.callbacks.on_failed(session, netns_cookie, reason);
    }
  });
}

void EngineServer::Impl::on_draining(SessionId session) {
  later([session](Impl& self) {
    if (self.find(session) != nullptr) {
      self.callbacks.on_draining(session);
    }
  });
}

void EngineServer::Impl::on_link(SessionId session, const Link& link) {
  later([session, link](Impl& self) {
    if (self.find(session) != nullptr) {
      self.callbacks.on_link(session, link);
    }
  });
}

void EngineServer::Impl::on_ended(Session& session, const std::string& reason) {
  const SessionId id = session.info().id;
  const bool known = session.was_registered();
  log_event(known ? LogLevel::kInfo : LogLevel::kWarn, "engines", "session_ended",
            {{"session", id}, {"pid", session.info().pid}, {"reason", reason}});
  std::erase_if(sessions, [&session](const auto& other) { return other.get() == &session; });
  if (known) {
    callbacks.on_lost(id);  // this runs from the loop already
  }
}

EngineServer::EngineServer(boost::asio::io_context& context, Callbacks callbacks,
                           const Timings& timings)
    : impl_(std::make_shared<Impl>(context, std::move(callbacks), timings)) {}

EngineServer::~EngineServer() {
  impl_->stop();
}

Result<void> EngineServer::listen(const std::string& path) {
  auto listening = impl_->server.listen(path);
  return listening ? listening : listening.error().within("engine socket");
}

void EngineServer::stop() {
  impl_->stop();
}

void EngineServer::upsert_pod(const PodSpec& pod) {
  auto [found, inserted] = impl_->state.pods.try_emplace(pod.netns_cookie, pod);
  if (!inserted) {
    PodSpec& known = found->second;
    if (known.namespace_name == pod.namespace_name && known.name == pod.name &&
        known.reserved_ports == pod.reserved_ports) {
      return;
    }
    known = pod;
  }
  for (const auto& session : impl_->sessions) {
    session->upsert_pod(pod.netns_cookie);
  }
}

void EngineServer::remove_pod(std::uint64_t netns_cookie, bool cut) {
  if (impl_->state.pods.erase(netns_cookie) == 0 && !cut) {
    return;  // cutting is also for connections of a pod that was removed earlier
  }
  for (const auto& session : impl_->sessions) {
    session->remove_pod(netns_cookie, cut);
  }
}

void EngineServer::reopen_pod(std::uint64_t netns_cookie) {
  for (const auto& session : impl_->sessions) {
    session->reopen_pod(netns_cookie);
  }
}

void EngineServer::update_routes(policy::Routes changes) {
  if (changes.empty()) {
    return;
  }
  std::set<std::string> keys;
  for (auto& [key, route] : changes) {
    keys.insert(key);
    if (route) {
      impl_->state.routes[key] = std::move(route);
    } else {
      impl_->state.routes.erase(key);
    }
  }
  for (const auto& session : impl_->sessions) {
    session->touch_routes(keys);
  }
}

std::vector<SessionInfo> EngineServer::sessions() const {
  std::vector<SessionInfo> all;
  for (const auto& session : impl_->sessions) {
    if (session->registered()) {
      all.push_back(session->info());
    }
  }
  std::sort(all.begin(), all.end(),
            [](const SessionInfo& a, const SessionInfo& b) { return a.id < b.id; });
  return all;
}

const PodListeners* EngineServer::listeners(SessionId session, std::uint64_t netns_cookie) const {
  const Session* const found = impl_->find(session);
  return found == nullptr ? nullptr : found->listeners(netns_cookie);
}

}  // namespace sidetrack::engines
