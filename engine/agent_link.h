// SPDX-License-Identifier: Apache-2.0
// AgentLink: the engine's end of the engine protocol. Connects to the agent's socket, again and
// again if need be; while the agent is away everything goes on as it was. One thread (the
// io_context's).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>

#include "engine/engine.h"
#include "engine/heartbeat.h"
#include "sidetrack/result.h"
#include "sidetrack/wire/engine.h"
#include "sidetrack/wire/framing.h"

namespace sidetrack::engine {

class AgentLink {
 public:
  struct Settings {
    std::string socket_path;
    std::string build;  // our version
  };

  // `on_fatal`: this process cannot serve (refused, wrong cgroup) and must end. References must
  // outlive it.
  AgentLink(boost::asio::io_context& context, Settings settings, Engine& engine,
            Heartbeat& heartbeat, std::function<void(const Error&)> on_fatal);
  ~AgentLink();
  AgentLink(const AgentLink&) = delete;
  AgentLink& operator=(const AgentLink&) = delete;

  void start();
  // Tells the agent, now and after every reconnect, that this engine goes; takes no new pods.
  void drain();

 private:
  using Socket = boost::asio::local::stream_protocol::socket;

  void connect();
  [[nodiscard]] Result<void> open_socket();
  void disconnected(const std::string& reason);
  void wait_readable();
  void on_readable();
  void send(const wire::EngineMessage& message);
  void flush();
  void send_stats();
  [[nodiscard]] Result<void> handle(wire::Frame& frame);

  [[nodiscard]] Result<void> on(const wire::Welcome& welcome, std::vector<UniqueFd>& fds);
  [[nodiscard]] Result<void> on(const wire::Refused& refused);
  [[nodiscard]] Result<void> on(const wire::Pod& pod, std::vector<UniqueFd>& fds);
  [[nodiscard]] Result<void> on(const wire::Reopen& reopen);
  [[nodiscard]] Result<void> on(const wire::Slots& slots, std::vector<UniqueFd>& fds);
  void on(const wire::Remove& remove);
  void on(const wire::Route& route);
  void end_snapshot();
  void tell_links();
  void answer(std::uint64_t request_id, std::uint64_t netns_cookie,
              const Result<const Pod*>& result);
  [[nodiscard]] ListenerPlan plan_for(const wire::Pod& pod) const;

  boost::asio::io_context& context_;
  Settings settings_;
  Engine& engine_;
  Heartbeat& heartbeat_;
  std::function<void(const Error&)> on_fatal_;
  Socket socket_;
  boost::asio::steady_timer retry_timer_;
  boost::asio::steady_timer stats_timer_;
  int tries_ = 0;                         // since the agent went away
  std::optional<wire::Welcome> welcome_;  // of this session
  bool served_ = false;                   // there was a session before
  bool away_logged_ = false;
  bool draining_ = false;
  bool waits_writable_ = false;
  wire::FrameReader reader_;
  wire::FrameWriter writer_;
  bool in_snapshot_ = false;
  std::set<std::uint64_t> snapshot_pods_;
  std::vector<SocketAddress> snapshot_routes_;
};

}  // namespace sidetrack::engine
