// SPDX-License-Identifier: Apache-2.0
#include "engine/forwarder.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "engine/upstream.h"

namespace sidetrack::engine {
namespace {

constexpr std::int64_t kMillisecondNs = 1'000'000;
// How long a reset waits for what came before it to reach the other side.
constexpr std::int64_t kResetGraceNs = 2'000 * kMillisecondNs;
constexpr int kResetPollMs = 10;
constexpr std::uint64_t kLinkUnitBytes = 8192;
// What a connection does before it asks for a link once more.
constexpr std::uint8_t kAskAgain = 255;

}  // namespace

Forwarder::Forwarder(int epoll, const Routes& routes, Counters& counters, NetnsSeat& seat,
                     Links& links, std::size_t buffer_bytes)
    : epoll_(epoll),
      routes_(routes),
      counters_(counters),
      seat_(seat),
      links_(links),
      relay_(buffer_bytes, counters, links),
      random_(static_cast<std::uint32_t>(epoll) * 2654435761U + 1U) {}

Forwarder::~Forwarder() {
  for (Connection* connection : closed_) {
    delete connection;
  }
}

void Forwarder::start(UniqueFd client, WorkerPod& pod, const SocketAddress& destination, bool v4) {
  auto* const connection = new Connection;
  connection->side[kClient].fd = client.release();
  connection->pod = &pod;
  connection->client_v4 = v4;
  connection->attempt = std::make_unique<Attempt>();
  connection->attempt->destination = destination;
  connection->attempt->route = routes_.find(destination);
  pod.connections.push_back(*connection);
  counters_.connections.add(1);
  if (pod.netns->gone.load(std::memory_order_acquire) || !watch(*connection, kClient)) {
    close(*connection, Ending::kReset);
    return;
  }
  if (connection->attempt->route && connection->attempt->route->spec().endpoints.empty()) {
    counters_.no_endpoints.add(1);
    report(connection->side[kClient].fd, v4, destination, ECONNREFUSED);
    close(*connection, Ending::kReset);
    return;
  }
  try_upstream(*connection);
}

void Forwarder::on_event(Connection& connection, SideIndex side, std::uint32_t events) {
  if (connection.closed) {
    return;
  }
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) != 0) {
    connection.side[side].read_to_end = true;  // an urgent byte ends a read before it
  }
  if (connection.attempt) {
    if (side == kServer) {
      on_connect_event(connection, events);
    } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
      close(connection, Ending::kReset);
    }
    return;
  }
  if (connection.broken || found_broken(connection, side, events)) {
    pump(connection, connection.broken_side);
    return;
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    pump(connection, side);
  }
  if ((events & EPOLLOUT) != 0 && !connection.closed && !connection.broken &&
      !connection.side[side].pending.empty()) {
    pump(connection, other(side));
  }
}

// An RST that comes after the FIN was read shows in no recv(): asked for here.
bool Forwarder::found_broken(Connection& connection, SideIndex side, std::uint32_t events) {
  const Side& state = connection.side[side];
  if ((events & (EPOLLHUP | EPOLLERR)) == 0 || !state.eof) {
    return false;
  }
  const bool error = (events & EPOLLERR) != 0 && socket_error(state.fd) != 0;
  if (!error && state.fin_sent) {
    return false;
  }
  connection.broken = true;
  connection.broken_side = side;
  return true;
}

void Forwarder::pump(Connection& connection, SideIndex from) {
  const auto& forwarded = connection.forwarded;
  const std::uint64_t before = forwarded[kClient] + forwarded[kServer];
  const Step step = relay_.pump(connection, from);
  if (connection.attempt && step == Step::kBroken) {
    if (connection.broken_side == kServer) {
      upstream_failed(connection, relay_.error());
    } else {
      close(connection, Ending::kReset);
    }
    return;
  }
  if (connection.broken) {
    finish_broken(connection, step);
    return;
  }
  if (step == Step::kDone) {
    close(connection, Ending::kQuiet);
  } else if (step == Step::kMore && !connection.side[from].queued) {
    connection.side[from].queued = true;
    ready_.push_back(Turn{.connection = &connection, .from = from});
  }
  if (!connection.link && !connection.closed && !connection.attempt) {
    age(connection, forwarded[kClient] + forwarded[kServer] - before);
  }
}

// A connection that has lived for a while gets a link, if there is one. If not, it asks again much
// later. Half-closed ones cannot be handed off any more.
void Forwarder::age(Connection& connection, std::uint64_t moved) {
  if (moved == 0 || !links_.attached()) {
    return;
  }
  const std::uint64_t step = 1 + moved / kLinkUnitBytes;
  if (step < connection.until_link) {
    connection.until_link = static_cast<std::uint8_t>(connection.until_link - step);
    return;
  }
  connection.until_link = kAskAgain;
  const Side* const side = connection.side;
  if (!side[kClient].eof && !side[kServer].eof) {
    connection.link = links_.open(side[kClient].fd, side[kServer].fd, connection.forwarded);
  }
}

// The bytes that came before the reset are on their way to the other side; the RST must not
// overtake them.
void Forwarder::finish_broken(Connection& connection, Step step) {
  const SideIndex from = connection.broken_side;
  if (step == Step::kMore && !connection.side[from].queued) {
    connection.side[from].queued = true;
    ready_.push_back(Turn{.connection = &connection, .from = from});
  }
  const bool drained = step == Step::kBroken || step == Step::kDone;
  if (drained && unacknowledged(connection.side[other(from)].fd) == 0) {
    close(connection, Ending::kReset);
  } else if (!connection.resetting) {
    connection.resetting = true;
    resetting_.push_back(
        Resetting{.connection = &connection, .deadline_ns = now_ns_ + kResetGraceNs});
  }
}

void Forwarder::close(Connection& connection, Ending ending) {
  stop_timer(connection);
  connection.attempt.reset();
  if (ending == Ending::kReset) {
    counters_.resets.add(1);
  }
  for (Side& side : connection.side) {
    if (side.fd < 0) {
      continue;
    }
    if (ending == Ending::kReset) {
      close_with_reset(side.fd);
    } else {
      if (!side.fin_sent) {
        finish_on_close(side.fd);
      }
      ::close(side.fd);
    }
    side.fd = -1;
  }
  if (connection.link) {
    links_.close(std::move(connection.link));
  }
  relay_.forget(connection);
  if (connection.endpoint) {
    connection.endpoint->connections.fetch_sub(1, std::memory_order_relaxed);
    connection.endpoint.reset();
  }
  if (connection.resetting) {
    std::erase_if(resetting_,
                  [&](const Resetting& item) { return item.connection == &connection; });
  }
  connection.pod->connections.erase(connection.pod->connections.iterator_to(connection));
  counters_.connections.subtract(1);
  connection.closed = true;
  closed_.push_back(&connection);
}

void Forwarder::cut(WorkerPod& pod) {
  while (!pod.connections.empty()) {
    close(pod.connections.front(), Ending::kReset);
  }
}

bool Forwarder::watch(Connection& connection, SideIndex side) const {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
  event.data.u64 = reinterpret_cast<std::uintptr_t>(&connection) | side;
  return ::epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.side[side].fd, &event) == 0;
}

void Forwarder::finish_turn(std::int64_t now_ns) {
  now_ns_ = now_ns;
  run_ready();
  run_timers();
  run_resetting();
  reclaim();
}

void Forwarder::run_ready() {
  running_.swap(ready_);
  for (const Turn& turn : running_) {
    turn.connection->side[turn.from].queued = false;
    if (!turn.connection->closed) {
      pump(*turn.connection, turn.connection->broken ? turn.connection->broken_side : turn.from);
    }
  }
  running_.clear();
}

void Forwarder::run_resetting() {
  for (std::size_t i = resetting_.size(); i-- > 0;) {
    Connection& connection = *resetting_[i].connection;
    const SideIndex to = other(connection.broken_side);
    const bool delivered = connection.side[to].pending.empty() &&
                           !connection.side[connection.broken_side].queued &&
                           unacknowledged(connection.side[to].fd) == 0;
    if (delivered || resetting_[i].deadline_ns <= now_ns_) {
      close(connection, Ending::kReset);
    }
  }
}

// Events of one epoll_wait may name a connection that an earlier one of them closed: its memory
// goes only now.
void Forwarder::reclaim() {
  std::erase_if(closed_, [](Connection* connection) {
    if (connection->side[kClient].queued || connection->side[kServer].queued) {
      return false;
    }
    delete connection;
    return true;
  });
}

int Forwarder::wait_ms(std::int64_t now_ns, int longest_ms) const {
  if (!ready_.empty()) {
    return 0;
  }
  if (!resetting_.empty()) {
    longest_ms = std::min(longest_ms, kResetPollMs);
  }
  if (!timers_.empty()) {
    const std::int64_t left_ns = timers_.front()->attempt->deadline_ns - now_ns;
    longest_ms =
        static_cast<int>(std::clamp<std::int64_t>(left_ns / kMillisecondNs + 1, 0, longest_ms));
  }
  return longest_ms;
}

std::uint32_t Forwarder::random() {  // xorshift32: only spreads ties
  random_ ^= random_ << 13U;
  random_ ^= random_ >> 17U;
  random_ ^= random_ << 5U;
  return random_;
}

}  // namespace sidetrack::engine
