// SPDX-License-Identifier: Apache-2.0
#include "agent/main/external_engine.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <utility>

#include "agent/sys/sock_diag.h"
#include "sidetrack/decide.h"
#include "sidetrack/log/log.h"

namespace sidetrack::agent {

namespace {

constexpr std::uint64_t kAskAgainNs = 5'000'000'000;        // doubled after every failure ...
constexpr std::uint64_t kAskAgainMostNs = 300'000'000'000;  // ... up to this

NodeListener to_listener(const sys::TcpSocket& socket) {
  NodeListener listener{.port = ntohs(socket.id.idiag_sport),
                        .v6_only = socket.v6_only,
                        .cookie = socket.cookie,
                        .backlog = socket.receive_queue,
                        .max_backlog = socket.send_queue,
                        .cgroup_id = socket.cgroup_id};
  if (socket.family == AF_INET) {
    listener.address.bytes[10] = listener.address.bytes[11] = 0xff;
    std::memcpy(&listener.address.bytes[12], socket.id.idiag_src, 4);
  } else {
    std::memcpy(listener.address.bytes, socket.id.idiag_src, 16);
  }
  return listener;
}

bool is_any(const st_addr& address) {
  static constexpr std::uint8_t kZero[4] = {};
  return st_addr_is_zero(&address) != 0 ||
         (st_addr_is_v4(&address) != 0 && std::memcmp(&address.bytes[12], kZero, 4) == 0);
}

bool is_watched(const volatile st_engine& cell, std::uint64_t cookie) {
  return std::any_of(std::begin(cell.watched), std::end(cell.watched),
                     [cookie](std::uint64_t seen) { return seen == cookie; });
}

// The cookie of a listener (0 = none), where the connect hook and sockops find it. `watched`: it
// was when the look began.
void put_cookie(const volatile st_engine& cell, volatile __u64& place, std::uint64_t cookie,
                bool watched) {
  // Only what differs is written: sockops may be clearing it right now.
  if (place != cookie) {
    place = cookie;
  }
  // At a close, sockops takes the cookie out of `watched`, and then away from here. We do it the
  // other way round: with a full fence on either side, one of the two sees the other.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (watched && !is_watched(cell, cookie)) {
    place = 0;
  }
}

}  // namespace

Result<std::vector<NodeListener>> list_listeners() {
  const auto sockets = sys::list_tcp_sockets(1U << TCP_LISTEN);
  ST_TRY(sockets);
  std::vector<NodeListener> listeners;
  listeners.reserve(sockets->size());
  std::transform(sockets->begin(), sockets->end(), std::back_inserter(listeners), to_listener);
  return listeners;
}

bool listens_on(const NodeListener& listener, const policy::SocketAddress& address) {
  if (listener.port != address.port) {
    return false;
  }
  if (st_addr_equal(&listener.address, &address.address) != 0) {
    return true;
  }
  const bool wants_v4 = st_addr_is_v4(&address.address) != 0;
  const bool any_v6 = st_addr_is_zero(&listener.address) != 0;
  return is_any(listener.address) && (wants_v4 ? !any_v6 || !listener.v6_only : any_v6);
}

bool AcceptQueue::look(std::uint64_t arrived, std::uint64_t waiting, std::uint64_t now_ns) {
  // Read in this order, what arrives between the two makes this smaller, never larger.
  const auto accepted = static_cast<std::int64_t>(arrived - waiting);
  const std::int64_t wanted = stuck_ ? well_at_ : accepted_ + 1;
  if (!waited_ || waiting == 0 || accepted >= wanted) {
    accepted_ = accepted;
    since_ns_ = now_ns;
    stuck_ = false;
  }
  waited_ = waiting != 0;
  if (!stuck_ && arrived != 0 && now_ns - since_ns_ >= ST_HEARTBEAT_STALE_NS) {
    stuck_ = true;
    well_at_ = static_cast<std::int64_t>(arrived);
  }
  return stuck_;
}

ExternalWatch::ExternalWatch(ExternalEngine engine, std::uint64_t engine_cgroup_id,
                             volatile st_engine* cell, Watch watch)
    : engine_(engine),
      engine_cgroup_id_(engine_cgroup_id),
      cell_(cell),
      failed_(std::make_shared<Failed>()),
      walks_([failed = failed_, watch = std::move(watch)](std::uint64_t cookie) {
        if (const auto done = watch(cookie); !done) {
          const std::lock_guard lock(failed->mutex);
          failed->why[cookie] = done.error().message;
        }
        return Result<void>{};  // we say ourselves that it failed
      }) {}

ExternalWatch::Found ExternalWatch::find(const std::vector<NodeListener>& listeners,
                                         const policy::SocketAddress& address) {
  Found found;
  if (address.port == 0) {
    return found;
  }
  for (const NodeListener& listener : listeners) {
    if (!listens_on(listener, address)) {
      continue;
    }
    // The program that answers SO_ORIGINAL_DST follows the cgroup in which the listener was made.
    if (listener.cgroup_id != 0 && listener.cgroup_id != engine_cgroup_id_) {
      problem_ = fmt::format(
          "{} is listened on from cgroup {}, not from --engine-cgroup (id {}): start the proxy "
          "inside of it",
          policy::format_endpoint(address.address, address.port), listener.cgroup_id,
          engine_cgroup_id_);
      continue;
    }
    found.push_back(&listener);
  }
  if (found.empty() && problem_.empty()) {
    problem_ = "nothing listens on " + policy::format_endpoint(address.address, address.port);
  }
  return found;
}

bool ExternalWatch::was_watched(std::uint64_t cookie) const {
  return std::find(watched_.begin(), watched_.end(), cookie) != watched_.end();
}

// One that needs nobody who looks, if there is.
const NodeListener* ExternalWatch::choose(const Found& found) const {
  const auto best = std::find_if(found.begin(), found.end(), [this](const NodeListener* listener) {
    return was_watched(listener->cookie);
  });
  return best != found.end() ? *best : found.empty() ? nullptr : found.front();
}

void ExternalWatch::look_at_queues(const Found& found, std::uint64_t arrived,
                                   std::uint64_t now_ns) {
  std::uint64_t waiting = 0;
  full_ = false;
  for (const NodeListener* listener : found) {
    waiting += listener->backlog;
    full_ = full_ || listener->backlog > listener->max_backlog - listener->max_backlog / 4;
  }
  const bool stuck = queue_.look(arrived, waiting, now_ns);
  if (full_) {
    problem_ = "its accept queue is three quarters full";
  } else if (stuck) {
    problem_ = fmt::format(
        "connections wait ({}), and it has accepted none for a second: it is stopped or stuck, or "
        "at its own limit of connections",
        waiting);
  }
  full_ = full_ || stuck;
}

bool ExternalWatch::watched(const NodeListener& listener, std::uint64_t now_ns) {
  if (was_watched(listener.cookie) || is_watched(*cell_, listener.cookie)) {
    return true;
  }
  // Elsewhere sockops would not see it.
  if (listener.cgroup_id == engine_cgroup_id_) {
    ask(listener.cookie, now_ns);
  }
  return false;
}

void ExternalWatch::ask(std::uint64_t cookie, std::uint64_t now_ns) {
  Asked& asked = asked_[cookie];
  if (asked.under_way || now_ns < asked.again_ns || !walks_.start(UniqueFd(), cookie)) {
    return;
  }
  asked.under_way = true;
  asked.pause_ns =
      asked.pause_ns == 0 ? kAskAgainNs : std::min(2 * asked.pause_ns, kAskAgainMostNs);
  asked.again_ns = now_ns + asked.pause_ns;
}

void ExternalWatch::take_failures() {
  const std::lock_guard lock(failed_->mutex);
  for (const auto& [cookie, why] : std::exchange(failed_->why, {})) {
    const auto found = asked_.find(cookie);
    if (found == asked_.end()) {
      continue;
    }
    found->second.under_way = false;
    if (std::exchange(found->second.failure, why) != why) {
      log_event(LogLevel::kError, "engine", "watch_failed",
                {{"kind", "external"}, {"socket_cookie", cookie}, {"detail", why}});
    }
  }
}

void ExternalWatch::forget_asked(const std::vector<NodeListener>& listeners) {
  std::erase_if(asked_, [&](const auto& asked) {
    return std::none_of(listeners.begin(), listeners.end(), [&](const NodeListener& listener) {
      return listener.cookie == asked.first;
    });
  });
}

void ExternalWatch::look(std::uint64_t now_ns, std::uint64_t lost) {
  problem_.clear();
  const std::uint64_t arrived = cell_->arrived;
  std::copy(std::begin(cell_->watched), std::end(cell_->watched), watched_.begin());
  auto listeners = list_listeners();
  if (!listeners) {
    problem_ = listeners.error().message;
    return;  // what is watched stays in use: its close is seen without us
  }
  // The kernel may still list what is closing.
  std::erase_if(*listeners, [&](const NodeListener& one) {
    return (lost != 0 && one.cookie == lost) ||
           (was_watched(one.cookie) && !is_watched(*cell_, one.cookie));
  });
  take_failures();
  forget_asked(*listeners);
  Found found = find(*listeners, engine_.v4);
  const NodeListener* v4 = choose(found);
  const Found of_v6 = find(*listeners, engine_.v6);
  const NodeListener* v6 = choose(of_v6);
  std::copy_if(of_v6.begin(), of_v6.end(), std::back_inserter(found), [&](const auto* listener) {
    return std::find(found.begin(), found.end(), listener) == found.end();
  });
  up_ = !found.empty();
  look_at_queues(found, arrived, now_ns);
  const bool watched_v4 = v4 == nullptr || watched(*v4, now_ns);
  const bool watched_v6 = v6 == nullptr || watched(*v6, now_ns);
  put_cookie(*cell_, cell_->listener_cookie_v4, v4 == nullptr ? 0 : v4->cookie,
             v4 != nullptr && watched_v4);
  put_cookie(*cell_, cell_->listener_cookie_v6, v6 == nullptr ? 0 : v6->cookie,
             v6 != nullptr && watched_v6);
  cell_->full = full_ ? 1 : 0;
  cell_->beat_ns = !up_ ? 0 : watched_v4 && watched_v6 ? ST_BEAT_NOT_NEEDED : now_ns;
}

}  // namespace sidetrack::agent
