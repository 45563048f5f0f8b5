// SPDX-License-Identifier: Apache-2.0
#include "engine/agent_link.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <type_traits>
#include <utility>
#include <variant>

#include <boost/asio/post.hpp>

#include "sidetrack/cgroup/process_cgroup.h"
#include "sidetrack/cli/rights.h"
#include "sidetrack/log/log.h"

namespace sidetrack::engine {
namespace {

using boost::system::error_code;

constexpr std::chrono::milliseconds kLeastBackoff(100);
constexpr std::chrono::milliseconds kMostBackoff(2000);
// Ten seconds: an agent that is being replaced is back by then, and until its engine is there new
// pods have none.
constexpr int kQuickTries = 100;
constexpr std::chrono::seconds kStatsPeriod(1);

// Before the next try, after so many in vain.
std::chrono::milliseconds pause_after(int tries) {
  std::chrono::milliseconds pause = kLeastBackoff;
  for (int i = kQuickTries; i < tries && pause < kMostBackoff; ++i) {
    pause *= 2;
  }
  return std::min(pause, kMostBackoff);
}

SocketAddress from_wire(const wire::Endpoint& endpoint) {
  return SocketAddress{.address = endpoint.address, .port = endpoint.port};
}

wire::Listening listening(std::uint64_t request_id, const Pod& pod) {
  wire::Listening message;
  message.request_id = request_id;
  message.netns_cookie = pod.netns->cookie;
  for (const Listener& listener : pod.listeners) {
    (is_v4(listener.address) ? message.v4 : message.v6)
        .push_back(wire::Listener{.port = listener.address.port, .cookie = listener.cookie});
  }
  return message;
}

}  // namespace

AgentLink::AgentLink(boost::asio::io_context& context, Settings settings, Engine& engine,
                     Heartbeat& heartbeat, std::function<void(const Error&)> on_fatal)
    : context_(context),
      settings_(std::move(settings)),
      engine_(engine),
      heartbeat_(heartbeat),
      on_fatal_(std::move(on_fatal)),
      socket_(context),
      retry_timer_(context),
      stats_timer_(context) {
  engine_.links().on_news([this] { boost::asio::post(context_, [this] { tell_links(); }); });
}

AgentLink::~AgentLink() {
  engine_.links().on_news(nullptr);
}

void AgentLink::start() {
  connect();
  send_stats();
}

void AgentLink::connect() {
  socket_ = Socket(context_);
  reader_ = {};
  writer_ = wire::FrameWriter();
  welcome_.reset();
  in_snapshot_ = false;
  if (const auto connected = open_socket(); !connected) {
    disconnected(cli::with_rights(connected.error(), "CAP_SYS_ADMIN").message);
    return;
  }
  send(wire::Hello{.build = settings_.build, .pid = ::getpid()});
  if (socket_.is_open()) {
    wait_readable();
  }
}

// Without Asio's connect(), which waits when the agent's queue is full; this says EAGAIN then.
Result<void> AgentLink::open_socket() {
  error_code error;
  const boost::asio::local::stream_protocol::endpoint endpoint(settings_.socket_path);
  socket_.open(endpoint.protocol(), error);
  if (!error) {
    socket_.native_non_blocking(true, error);
  }
  if (error) {
    return errno_error("socket", error.value());
  }
  if (::connect(socket_.native_handle(), endpoint.data(),
                static_cast<socklen_t>(endpoint.size())) != 0) {
    return errno_error("connect", errno);
  }
  return {};
}

void AgentLink::disconnected(const std::string& reason) {
  error_code ignored;
  socket_.close(ignored);
  welcome_.reset();
  engine_.links().detach();
  if (!std::exchange(away_logged_, true)) {
    log_event(
        LogLevel::kWarn, "engine", "agent_away",
        {{"socket", settings_.socket_path}, {"reason", reason}, {"connections_go_on", "true"}});
  }
  retry_timer_.expires_after(pause_after(++tries_));
  retry_timer_.async_wait([this](const error_code& error) {
    if (!error) {
      connect();
    }
  });
}

void AgentLink::wait_readable() {
  socket_.async_wait(Socket::wait_read, [this](const error_code& error) {
    if (!error && socket_.is_open()) {
      on_readable();
    }
  });
}

void AgentLink::on_readable() {
  auto received = reader_.read(socket_.native_handle());
  if (!received) {
    disconnected(received.error().message);
    return;
  }
  for (wire::Frame& frame : received->frames) {
    if (const auto handled = handle(frame); !handled) {
      disconnected(handled.error().message);
    }
    if (!socket_.is_open()) {
      return;
    }
  }
  if (received->closed) {
    disconnected("closed by the agent");
    return;
  }
  wait_readable();
}

void AgentLink::send(const wire::EngineMessage& message) {
  if (!socket_.is_open()) {
    return;
  }
  auto body = wire::encode(message);
  const auto pushed = body ? writer_.push(std::move(*body)) : Result<void>(body.error());
  if (!pushed) {
    disconnected(pushed.error().message);
    return;
  }
  flush();
}

void AgentLink::flush() {
  if (const auto flushed = writer_.flush(socket_.native_handle()); !flushed) {
    disconnected(flushed.error().message);
    return;
  }
  if (writer_.empty() || std::exchange(waits_writable_, true)) {
    return;
  }
  socket_.async_wait(Socket::wait_write, [this](const error_code& error) {
    waits_writable_ = false;
    if (!error && socket_.is_open()) {
      flush();
    }
  });
}

void AgentLink::send_stats() {
  if (welcome_) {
    const EngineTotals totals = engine_.totals();
    send(wire::Stats{
        .connections = totals.connections,
        .accepted_total = totals.accepted,
        .refused_total = totals.not_redirected + totals.no_endpoints + totals.connect_failed,
        .files_used = heartbeat_.files_used(),
        .files_limit = heartbeat_.files_limit()});
  }
  stats_timer_.expires_after(kStatsPeriod);
  stats_timer_.async_wait([this](const error_code& error) {
    if (!error) {
      send_stats();
    }
  });
}

void AgentLink::drain() {
  draining_ = true;
  if (welcome_) {
    send(wire::Draining{});
  }
}

Result<void> AgentLink::handle(wire::Frame& frame) {
  const auto message = wire::decode(frame.body);
  if (!message) {
    if (message.error().code == ErrorCode::kUnsupported) {
      return {};  // of a newer agent
    }
    return message.error();
  }
  const bool first = std::holds_alternative<wire::Welcome>(*message) ||
                     std::holds_alternative<wire::Refused>(*message);
  if (first == welcome_.has_value() || frame.fds.size() != wire::descriptors_of(*message)) {
    return make_error(ErrorCode::kInvalid, fmt::format("unexpected {}", wire::kind_of(*message)));
  }
  return std::visit(
      [&](const auto& item) -> Result<void> {
        using Item = std::decay_t<decltype(item)>;
        if constexpr (std::is_same_v<Item, wire::Welcome> || std::is_same_v<Item, wire::Slots> ||
                      std::is_same_v<Item, wire::Pod>) {
          return on(item, frame.fds);
        } else if constexpr (std::is_same_v<Item, wire::Refused> ||
                             std::is_same_v<Item, wire::Reopen>) {
          return on(item);
        } else if constexpr (std::is_same_v<Item, wire::Remove> ||
                             std::is_same_v<Item, wire::Route>) {
          on(item);
        } else if constexpr (std::is_same_v<Item, wire::RouteRemove>) {
          engine_.routes().remove(from_wire(item.front));
        } else if constexpr (std::is_same_v<Item, wire::Keep>) {
          snapshot_pods_.insert(item.netns_cookie);
        } else if constexpr (std::is_same_v<Item, wire::SnapshotBegin>) {
          in_snapshot_ = true;
          snapshot_pods_.clear();
          snapshot_routes_.clear();
        } else if constexpr (std::is_same_v<Item, wire::SnapshotEnd>) {
          end_snapshot();
        } else {
          return make_error(ErrorCode::kInvalid, "a message that only an engine sends");
        }
        return {};
      },
      *message);
}

Result<void> AgentLink::on(const wire::Welcome& welcome, std::vector<UniqueFd>& fds) {
  // A getsockopt program follows the cgroup in which a listener was made: outside of ours,
  // listeners would not learn where their connections want to go, and our own connects would be
  // redirected to us.
  const auto cgroup = cgroup::own_id();
  if (!cgroup || *cgroup != welcome.cgroup_id) {
    const Error error =
        cgroup ? make_error(ErrorCode::kInvalid,
                            fmt::format("this process is in cgroup {}, the agent wants it in {} (a "
                                        "container needs hostPID and CAP_SYS_ADMIN to see the "
                                        "host's cgroups)",
                                        *cgroup, welcome.cgroup_id))
               : cgroup.error();
    on_fatal_(error);
    return error;
  }
  ST_TRY(heartbeat_.attach(fds.front(), welcome.slot));
  welcome_ = welcome;
  served_ = true;
  away_logged_ = false;
  tries_ = 0;
  log_event(LogLevel::kInfo, "engine", "registered", {{"slot", std::to_string(welcome.slot)}});
  if (draining_) {
    send(wire::Draining{});
  }
  return {};
}

Result<void> AgentLink::on(const wire::Slots& /*slots*/, std::vector<UniqueFd>& fds) {
  return engine_.links().attach(fds.front(), welcome_->slot);
}

void AgentLink::tell_links() {
  for (const LinkNews& link : engine_.links().take_news()) {
    send(wire::Link{.client_cookie = link.client_cookie,
                    .server_cookie = link.server_cookie,
                    .index = link.index});
  }
}

Result<void> AgentLink::on(const wire::Refused& refused) {
  const Error error =
      make_error(ErrorCode::kPermission, "the agent refuses this engine: " + refused.reason);
  // One that has connections does not end them because the agent that came back has no place for it
  // yet.
  if (!served_) {
    on_fatal_(error);
  }
  return error;
}

ListenerPlan AgentLink::plan_for(const wire::Pod& pod) const {
  return ListenerPlan{.port_low = welcome_->listener_port_low,
                      .port_high = welcome_->listener_port_high,
                      .count = welcome_->listeners_per_pod,
                      .reserved_ports = pod.reserved_ports};
}

Result<void> AgentLink::on(const wire::Pod& pod, std::vector<UniqueFd>& fds) {
  if (in_snapshot_) {
    snapshot_pods_.insert(pod.netns_cookie);
  }
  if (draining_) {
    answer(pod.request_id, pod.netns_cookie, make_error(ErrorCode::kBusy, "draining"));
    return {};
  }
  const auto served = engine_.add_pod(pod.netns_cookie, std::move(fds.front()), plan_for(pod));
  log_event(served ? LogLevel::kDebug : LogLevel::kWarn, "engine",
            served ? "pod_served" : "pod_failed",
            {{"namespace", pod.namespace_name},
             {"pod", pod.name},
             {"netns_cookie", std::to_string(pod.netns_cookie)},
             {"reason", served ? "" : served.error().message}});
  answer(pod.request_id, pod.netns_cookie, served);
  return {};
}

Result<void> AgentLink::on(const wire::Reopen& reopen) {
  answer(reopen.request_id, reopen.netns_cookie,
         draining_ ? make_error(ErrorCode::kBusy, "draining")
                   : engine_.reopen_pod(reopen.netns_cookie));
  return {};
}

void AgentLink::answer(std::uint64_t request_id, std::uint64_t netns_cookie,
                       const Result<const Pod*>& result) {
  if (result) {
    send(listening(request_id, **result));
  } else {
    send(wire::Failed{
        .request_id = request_id, .netns_cookie = netns_cookie, .reason = result.error().message});
  }
}

void AgentLink::on(const wire::Remove& remove) {
  engine_.remove_pod(remove.netns_cookie, remove.cut ? Cut::kYes : Cut::kNo);
}

void AgentLink::on(const wire::Route& route) {
  RouteSpec spec{.front = from_wire(route.front),
                 .service = route.service,
                 .endpoints = {},
                 .affinity_timeout_s = route.affinity_timeout_s};
  spec.endpoints.reserve(route.endpoints.size());
  for (const wire::Endpoint& endpoint : route.endpoints) {
    spec.endpoints.push_back(from_wire(endpoint));
  }
  if (in_snapshot_) {
    snapshot_routes_.push_back(spec.front);
  }
  engine_.routes().set(std::move(spec));
}

void AgentLink::end_snapshot() {
  in_snapshot_ = false;
  for (const std::uint64_t cookie : engine_.pods()) {
    if (!snapshot_pods_.contains(cookie)) {
      engine_.remove_pod(cookie, Cut::kNo);
    }
  }
  engine_.routes().keep_only(snapshot_routes_);
}

}  // namespace sidetrack::engine
