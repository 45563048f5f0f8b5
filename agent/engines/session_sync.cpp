// SPDX-License-Identifier: Apache-2.0
// The half of Session that brings the engine in step: what is due, and sending it at the engine's
// pace.
#include <utility>

#include <boost/asio/post.hpp>

#include "agent/engines/messages.h"
#include "agent/engines/session.h"

namespace sidetrack::engines {
namespace {

using Clock = PodLedger::Clock;

// Beyond this much in the queue nothing more is encoded until the engine has read: what is due is
// kept as keys, not as bytes.
constexpr std::size_t kHighWaterBytes = std::size_t{2} << 20;

}  // namespace

// An engine that lived through a restart of the agent drops what is no longer desired at the end of
// the snapshot. Pods follow after it, at their pace: one that is slow to open must not hold the end
// back, so all of them are kept first.
void Session::begin_snapshot() {
  send(wire::SnapshotBegin{});
  for (const auto& [cookie, spec] : host_->desired().pods) {
    send(wire::Keep{.netns_cookie = cookie});
    pods_.want(cookie);
  }
  for (const auto& [key, route] : host_->desired().routes) {
    due_routes_.insert(key);
  }
  snapshot_open_ = true;
  schedule_pump();
}

void Session::upsert_pod(std::uint64_t netns_cookie) {
  if (registered()) {
    pods_.want(netns_cookie);
    schedule_pump();
  }
}

void Session::remove_pod(std::uint64_t netns_cookie, bool cut) {
  if (registered()) {
    pods_.forget(netns_cookie);
    send(wire::Remove{.netns_cookie = netns_cookie, .cut = cut});
    schedule_pump();
  }
}

void Session::reopen_pod(std::uint64_t netns_cookie) {
  if (registered()) {
    pods_.want_reopen(netns_cookie);
    schedule_pump();
  }
}

void Session::touch_routes(const std::set<std::string>& keys) {
  if (registered()) {
    due_routes_.insert(keys.begin(), keys.end());
    schedule_pump();
  }
}

void Session::schedule_pump() {
  if (std::exchange(pump_posted_, true)) {
    return;
  }
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] {
    self->pump_posted_ = false;
    if (self->stage_ != Stage::kEnded) {
      self->pump();
    }
  });
}

void Session::pump() {
  while (registered() && !due_routes_.empty() && writer_.queued_bytes() < kHighWaterBytes) {
    send_route(due_routes_.extract(due_routes_.begin()).value());
  }
  if (registered() && snapshot_open_ && due_routes_.empty()) {
    snapshot_open_ = false;
    send(wire::SnapshotEnd{});
  }
  while (registered() && !snapshot_open_ && writer_.queued_bytes() < kHighWaterBytes) {
    const auto cookie = pods_.next_due();
    if (!cookie) {
      break;
    }
    send_pod(*cookie);
  }
  if (stage_ != Stage::kEnded) {
    flush();
  }
  if (stage_ != Stage::kEnded) {
    arm_timer();
  }
}

void Session::send_route(const std::string& key) {
  const auto& desired = host_->desired().routes;
  const auto wanted = desired.find(key);
  const auto sent = sent_routes_.find(key);
  if (wanted == desired.end()) {
    if (sent != sent_routes_.end()) {
      send(wire::RouteRemove{.front = wire_endpoint(sent->second->front)});
      sent_routes_.erase(sent);
    }
    return;
  }
  if (sent == sent_routes_.end() || !same_route(*sent->second, *wanted->second)) {
    send(route_message(*wanted->second));
    sent_routes_[key] = wanted->second;
  }
}

void Session::send_pod(std::uint64_t netns_cookie) {
  const auto request = pods_.begin(netns_cookie, Clock::now());
  if (!request) {
    return;
  }
  if (request->reopen) {
    send(wire::Reopen{.request_id = request->id, .netns_cookie = netns_cookie});
    return;
  }
  auto netns = host_->open_netns(netns_cookie);
  if (!registered()) {
    return;  // the callback stopped the server
  }
  const auto& desired = host_->desired().pods;
  const auto spec = desired.find(netns_cookie);
  if (spec == desired.end()) {
    return;  // the callback removed the pod
  }
  if (!netns) {
    fail_pod(netns_cookie, netns.error().message);
    return;
  }
  auto body = wire::encode(wire::Pod{.request_id = request->id,
                                     .netns_cookie = netns_cookie,
                                     .namespace_name = spec->second.namespace_name,
                                     .name = spec->second.name,
                                     .reserved_ports = spec->second.reserved_ports});
  if (!body) {
    fail_pod(netns_cookie, body.error().message);
  } else if (const auto pushed = writer_.push(std::move(*body), single(std::move(*netns)));
             !pushed) {
    end(pushed.error().message);
  }
}

void Session::fail_pod(std::uint64_t netns_cookie, const std::string& reason) {
  pods_.fail(netns_cookie, Clock::now());
  host_->on_failed(info_.id, netns_cookie, reason);
}

}  // namespace sidetrack::engines
