// SPDX-License-Identifier: Apache-2.0
#include "engine/worker.h"

#include <fmt/core.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "engine/upstream.h"

namespace sidetrack::engine {
namespace {

constexpr int kLongestWaitMs = 100;
constexpr int kAcceptsPerEvent = 16;
constexpr std::int64_t kPauseNs = 10'000'000;
constexpr std::size_t kEventsPerTurn = 256;
// What epoll_event.data says: a connection's address (bit 0 is the side), or one of these with bit
// 1 set.
constexpr std::uint64_t kListenerTag = 2;
constexpr std::uint64_t kWakeTag = 3;
constexpr unsigned kTagBits = 2;
constexpr std::uint64_t kTagMask = 3;

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Worker::Worker(WorkerSettings settings) : settings_(settings) {}

Worker::~Worker() {
  stop();
  if (forwarder_) {
    for (auto& [cookie, pod] : pods_) {
      forwarder_->cut(*pod);
    }
    for (auto& pod : leaving_) {
      forwarder_->cut(*pod);
    }
  }
}

Result<void> Worker::start(std::span<const std::unique_ptr<Worker>> peers) {
  peers_ = peers;
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_.valid() || !wake_.valid()) {
    return errno_error("epoll", errno);
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeTag;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) {
    return errno_error("epoll_ctl", errno);
  }
  // The starting thread's netns is the worker's as well.
  Result<NetnsSeat> seat = NetnsSeat::here();
  if (!seat) {
    return seat.error();
  }
  seat_ = std::move(*seat);
  forwarder_ = std::make_unique<Forwarder>(epoll_.get(), *settings_.routes, counters_, seat_,
                                           *settings_.links, settings_.buffer_bytes);
  counters_.turned_ns.store(now_ns(), std::memory_order_relaxed);
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    return make_error(ErrorCode::kFull, fmt::format("start worker: {}", error.what()));
  }
  return {};
}

void Worker::stop() {
  if (thread_.joinable()) {
    stopping_.store(true, std::memory_order_release);
    ::eventfd_write(wake_.get(), 1);
    thread_.join();
  }
}

void Worker::add_pod(std::shared_ptr<const Pod> pod) {
  post(AddPod{std::move(pod)});
}

void Worker::remove_pod(std::uint64_t netns_cookie, Cut cut) {
  post(RemovePod{netns_cookie, cut});
}

void Worker::post(Command command) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = commands_.empty();
    commands_.push_back(std::move(command));
  }
  if (first) {
    ::eventfd_write(wake_.get(), 1);
  }
}

void Worker::run() {
  ::pthread_setname_np(::pthread_self(), fmt::format("worker-{}", settings_.index).c_str());
  std::array<epoll_event, kEventsPerTurn> events{};
  std::int64_t now = now_ns();
  while (!stopping_.load(std::memory_order_acquire)) {
    const int longest_ms =
        paused_.empty() ? kLongestWaitMs : static_cast<int>(kPauseNs / 1'000'000);
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   forwarder_->wait_ms(now, longest_ms));
    now = now_ns();
    counters_.turned_ns.store(now, std::memory_order_relaxed);
    forwarder_->set_now(now);
    turn(std::span(events.data(), static_cast<std::size_t>(std::max(count, 0))));
    forwarder_->finish_turn(now);
    sweep();
    resume(now);
  }
}

void Worker::turn(std::span<const epoll_event> events) {
  for (const epoll_event& event : events) {
    const std::uint64_t tag = event.data.u64 & kTagMask;
    if (tag == kWakeTag) {
      run_commands();
    } else if (tag == kListenerTag) {
      (void)accept_some(event.data.u64 >> kTagBits);
    } else {
      auto* const connection = reinterpret_cast<Connection*>(event.data.u64 & ~kTagMask);
      forwarder_->on_event(*connection, static_cast<SideIndex>(tag), event.events);
    }
  }
}

void Worker::run_commands() {
  eventfd_t ignored = 0;
  ::eventfd_read(wake_.get(), &ignored);
  std::vector<Command> commands;
  {
    const std::lock_guard lock(mutex_);
    commands.swap(commands_);
  }
  for (Command& command : commands) {
    std::visit([this](auto& item) { run_command(item); }, command);
  }
}

void Worker::run_command(AddPod& command) {
  const std::shared_ptr<Netns>& netns = command.pod->netns;
  std::unique_ptr<WorkerPod>& slot = pods_[netns->cookie];
  if (slot) {
    retire(std::move(slot));
  }
  slot = std::make_unique<WorkerPod>();
  slot->netns = netns;
  slot->pod = std::move(command.pod);
  for (const Listener& listener : slot->pod->listeners) {
    listeners_.emplace(listener.id, Watched{.listener = &listener, .pod = slot.get()});
    if (!watch(listener)) {
      paused_.push_back(listener.id);  // out of memory: tried again
    }
  }
}

void Worker::run_command(const RemovePod& command) {
  if (const auto found = pods_.find(command.netns_cookie); found != pods_.end()) {
    retire(std::move(found->second));
    pods_.erase(found);
  }
  if (command.cut == Cut::kYes) {
    for (const auto& pod : leaving_) {
      if (pod->netns->cookie == command.netns_cookie) {
        forwarder_->cut(*pod);
      }
    }
  }
}

void Worker::run_command(Adopt& command) {
  const auto found = pods_.find(command.netns->cookie);
  if (found != pods_.end() && found->second->netns == command.netns) {
    forwarder_->start(std::move(command.client), *found->second, command.destination, command.v4);
    return;
  }
  // The pod is on its way in or out here: the connection gets a pod of its own, which goes with it.
  leaving_.push_back(std::make_unique<WorkerPod>());
  leaving_.back()->netns = std::move(command.netns);
  forwarder_->start(std::move(command.client), *leaving_.back(), command.destination, command.v4);
}

void Worker::retire(std::unique_ptr<WorkerPod> pod) {
  for (const Listener& listener : pod->pod->listeners) {
    // What waits to be accepted would be reset when the listener closes.
    while (accept_some(listener.id)) {
    }
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener.fd.get(), nullptr);
    listeners_.erase(listener.id);
  }
  pod->pod.reset();
  leave(*pod->netns);
  leaving_.push_back(std::move(pod));
}

void Worker::leave(const Netns& netns) {
  if (seat_.leave(netns) != 0) {
    std::abort();  // the thread would hold the pod's netns for ever; a fresh engine does not
  }
}

void Worker::sweep() {
  std::erase_if(leaving_, [this](const auto& pod) {
    if (!pod->connections.empty()) {
      return false;
    }
    leave(*pod->netns);  // an endpoint may have been tried since it was retired
    return true;
  });
}

bool Worker::accept_some(std::uint64_t listener_id) {
  const auto found = listeners_.find(listener_id);
  if (found == listeners_.end()) {
    return false;  // closed by an earlier event of this turn
  }
  const Watched at = found->second;
  for (int i = 0; i < kAcceptsPerEvent; ++i) {
    UniqueFd client(
        ::accept4(at.listener->fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (client.valid()) {
      accepted(std::move(client), at);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      pause(at);
    } else if (errno == ECONNABORTED || errno == EINTR) {
      continue;
    }
    return false;
  }
  return true;
}

void Worker::accepted(UniqueFd client, const Watched& at) {
  counters_.accepted.add(1);
  const SocketAddress& here = at.listener->address;
  const auto destination = settings_.original_destination->of(client.get(), here);
  const auto is_listener = [&](const Listener& listener) {
    return listener.address == *destination;
  };
  const auto& own = at.pod->pod->listeners;
  if (!destination || std::any_of(own.begin(), own.end(), is_listener)) {
    counters_.not_redirected.add(1);
    close_with_reset(client.release());
    return;
  }
  Worker& worker = least_loaded();
  if (&worker == this) {
    forwarder_->start(std::move(client), *at.pod, *destination, is_v4(here));
  } else {
    worker.post(Adopt{std::move(client), at.pod->netns, *destination, is_v4(here)});
  }
}

// Who calls epoll_wait first gets a burst of connections; ones that stay would then all sit on one
// core.
Worker& Worker::least_loaded() {
  Worker* least = this;
  std::uint64_t fewest = counters_.connections.get();
  const std::uint64_t own = fewest;
  for (const auto& peer : peers_) {
    if (const std::uint64_t count = peer->counters_.connections.get(); count < fewest) {
      fewest = count;
      least = peer.get();
    }
  }
  return own > fewest + 4 + fewest / 8 ? *least : *this;
}

bool Worker::watch(const Listener& listener) const {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLEXCLUSIVE;
  event.data.u64 = (listener.id << kTagBits) | kListenerTag;
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener.fd.get(), &event) == 0;
}

// No file or memory for another connection: the listener stays readable, so it is left alone for a
// moment.
void Worker::pause(const Watched& at) {
  counters_.accept_paused.add(1);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, at.listener->fd.get(), nullptr);
  paused_.push_back(at.listener->id);
  if (resume_ns_ == 0) {
    resume_ns_ = now_ns() + kPauseNs;
  }
}

void Worker::resume(std::int64_t now) {
  if (paused_.empty() || now < resume_ns_) {
    return;
  }
  resume_ns_ = 0;
  std::erase_if(paused_, [this](std::uint64_t id) {
    const auto found = listeners_.find(id);
    return found == listeners_.end() || watch(*found->second.listener);
  });
}

}  // namespace sidetrack::engine
