// SPDX-License-Identifier: Apache-2.0
// How a Forwarder reaches an upstream: endpoint after endpoint until one answers.
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "engine/forwarder.h"
#include "engine/spare_ports.h"
#include "engine/upstream.h"

namespace sidetrack::engine {
namespace {

// How long one endpoint may take to answer while there are others.
constexpr std::int64_t kConnectTimeoutNs = 3'000'000'000;
// How long a pod's port range counts as used up before connect() may search it again.
constexpr std::int64_t kPortsUsedNs = 2'000'000'000;

// Errors that say something about this machine, not about the endpoint.
bool is_local_error(int error_number) {
  return error_number == EMFILE || error_number == ENFILE || error_number == ENOBUFS ||
         error_number == ENOMEM || error_number == EADDRNOTAVAIL || error_number == EPERM;
}

}  // namespace

void Forwarder::try_upstream(Connection& connection) {
  if (!open_next(connection)) {
    return;
  }
  // On this node the handshake is over when connect() returns: what the client has sent can go out
  // now, without a round through epoll. If not, the bytes wait in `pending`, also for the next
  // endpoint. Later endpoints wait for their event, or a long list of refusing ones would nest as
  // deep.
  if (connection.attempt->tried.size() > 1) {
    return;
  }
  pump(connection, kClient);
  if (connection.attempt && relay_.delivered()) {
    reached(connection);
    if (connection.side[kClient].eof) {
      pump(connection, kClient);  // the FIN had to wait for the connection
    }
  }
}

// Opens a socket to the next endpoint that lets itself be tried. False: there is none, the
// connection is closed.
bool Forwarder::open_next(Connection& connection) {
  Attempt& attempt = *connection.attempt;
  for (int error_number = ECONNREFUSED;;) {
    SocketAddress target = attempt.destination;
    if (attempt.route) {
      auto endpoint =
          attempt.route->choose(connection.pod->netns->cookie, now_ns_, random(), attempt.tried);
      if (!endpoint) {
        give_up(connection, error_number);
        return false;
      }
      attempt.tried.push_back(endpoint.get());
      target = endpoint->address;
      endpoint->connections.fetch_add(1, std::memory_order_relaxed);
      connection.endpoint = std::move(endpoint);
    }
    error_number = seat_.enter(*connection.pod->netns);
    Opened opened = error_number == 0 ? open_in(*connection.pod->netns, target)
                                      : Opened{.error_number = error_number};
    connection.side[kServer].fd = opened.fd;
    if (opened.fd >= 0 && watch(connection, kServer)) {
      break;
    }
    error_number = opened.fd >= 0 ? ENOMEM : opened.error_number;
    counters_.endpoint_failures.add(attempt.route ? 1 : 0);
    if (attempt.route && !is_local_error(error_number)) {
      mark_failed(*connection.endpoint, now_ns_);
    }
    drop_upstream(connection);
    if (!attempt.route) {
      give_up(connection, error_number);
      return false;
    }
  }
  if (attempt.route && attempt.route->has_untried(attempt.tried)) {
    attempt.deadline_ns = now_ns_ + kConnectTimeoutNs;
    attempt.timer = timers_.insert(timers_.end(), &connection);
  }
  return true;
}

Opened Forwarder::open_in(Netns& netns, const SocketAddress& target) {
  if (now_ns_ < netns.ports_used_until_ns.load(std::memory_order_relaxed)) {
    if (const int fd = connect_from_spare_port(target, random()); fd >= 0) {
      return Opened{.fd = fd};
    }
  }
  const Opened opened = open_upstream(target);
  if (opened.fd >= 0 || opened.error_number != EADDRNOTAVAIL) {
    return opened;
  }
  const int fd = connect_from_spare_port(target, random());
  if (fd < 0) {
    return opened;
  }
  netns.ports_used_until_ns.store(now_ns_ + kPortsUsedNs, std::memory_order_relaxed);
  return Opened{.fd = fd};
}

void Forwarder::upstream_failed(Connection& connection, int error_number) {
  if (connection.endpoint) {
    counters_.endpoint_failures.add(1);
    if (!is_local_error(error_number)) {
      mark_failed(*connection.endpoint, now_ns_);
    }
  }
  const bool again = connection.attempt->route &&
                     connection.attempt->route->has_untried(connection.attempt->tried);
  if (again && !connection.pod->netns->gone.load(std::memory_order_acquire)) {
    drop_upstream(connection);
    try_upstream(connection);
  } else {
    give_up(connection, error_number);
  }
}

void Forwarder::give_up(Connection& connection, int error_number) {
  counters_.connect_failed.add(1);
  const SocketAddress& shown =
      connection.endpoint ? connection.endpoint->address : connection.attempt->destination;
  report(connection.side[kClient].fd, connection.client_v4, shown, error_number);
  close(connection, Ending::kReset);
}

void Forwarder::drop_upstream(Connection& connection) {
  stop_timer(connection);
  Side& server = connection.side[kServer];
  if (server.fd >= 0) {
    ::close(std::exchange(server.fd, -1));
  }
  server.read_to_end = false;
  if (connection.endpoint) {
    connection.endpoint->connections.fetch_sub(1, std::memory_order_relaxed);
    connection.endpoint.reset();
  }
}

void Forwarder::stop_timer(Connection& connection) {
  if (connection.attempt && connection.attempt->deadline_ns != 0) {
    timers_.erase(connection.attempt->timer);
    connection.attempt->deadline_ns = 0;
  }
}

void Forwarder::on_connect_event(Connection& connection, std::uint32_t events) {
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    const int error_number = socket_error(connection.side[kServer].fd);
    // These two only come on a connection that was made.
    if (error_number == ECONNRESET || error_number == EPIPE) {
      connection.broken = true;
      connection.broken_side = kServer;
    } else if (error_number != 0) {
      upstream_failed(connection, error_number);
      return;
    }
  } else if ((events & EPOLLOUT) == 0) {
    return;
  }
  connected(connection);
}

void Forwarder::reached(Connection& connection) {
  stop_timer(connection);
  if (connection.endpoint) {
    report(connection.side[kClient].fd, connection.client_v4, connection.endpoint->address, 0);
  }
  connection.attempt.reset();
}

void Forwarder::connected(Connection& connection) {
  reached(connection);
  if (!connection.broken) {
    pump(connection, kClient);
  }
  if (!connection.closed) {
    pump(connection, connection.broken ? connection.broken_side : kServer);
  }
}

void Forwarder::run_timers() {
  while (!timers_.empty() && timers_.front()->attempt->deadline_ns <= now_ns_) {
    upstream_failed(*timers_.front(), ETIMEDOUT);
  }
}

}  // namespace sidetrack::engine
