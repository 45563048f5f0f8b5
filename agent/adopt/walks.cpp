// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/walks.h"

#include <fcntl.h>
#include <sched.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "sidetrack/log/log.h"

namespace sidetrack::adopt {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kMostWaiting = 1024;
constexpr std::chrono::seconds kLong{1};

struct Walk {
  UniqueFd netns;
  std::uint64_t socket_cookie = 0;
};

}  // namespace

struct Walks::Shared {
  std::function<Result<void>(std::uint64_t)> walk;
  std::mutex mutex;
  std::condition_variable changed;
  // Below: under `mutex`.
  std::deque<Walk> waiting;
  bool stopped = false;
  bool walking = false;
  bool told = false;  // that the walk under way takes long, or that too many wait
  Clock::time_point since{};

  void serve();
  Result<void> go(const Walk& next, int home) const;
};

Result<void> Walks::Shared::go(const Walk& next, int home) const {
  if (!next.netns.valid()) {
    return walk(next.socket_cookie);
  }
  if (setns(next.netns.get(), CLONE_NEWNET) != 0) {
    return errno_error("enter the namespace", errno);
  }
  auto done = walk(next.socket_cookie);
  // A thread keeps the namespace alive that it is in.
  if (setns(home, CLONE_NEWNET) != 0) {
    return errno_error("leave the namespace", errno);
  }
  return done;
}

void Walks::Shared::serve() {
  const UniqueFd home(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  std::unique_lock lock(mutex);
  for (;;) {
    changed.wait(lock, [this] { return stopped || !waiting.empty(); });
    if (stopped) {
      return;
    }
    const Walk next = std::move(waiting.front());
    waiting.pop_front();
    walking = true;
    told = false;
    since = Clock::now();
    lock.unlock();
    if (auto done = go(next, home.get()); !done) {
      log_event(LogLevel::kError, "adopt", "walk_failed",
                {{"socket_cookie", next.socket_cookie}, {"detail", done.error().message}});
    }
    lock.lock();
    walking = false;
    changed.notify_all();
  }
}

Walks::Walks(std::function<Result<void>(std::uint64_t)> walk)
    : shared_(std::make_shared<Shared>()) {
  shared_->walk = std::move(walk);
  std::thread([shared = shared_] { shared->serve(); }).detach();
}

Walks::~Walks() {
  std::unique_lock lock(shared_->mutex);
  shared_->stopped = true;
  shared_->changed.notify_all();
  shared_->changed.wait_for(lock, kLong, [this] { return !shared_->walking; });
}

bool Walks::start(UniqueFd netns, std::uint64_t socket_cookie) {
  const std::lock_guard lock(shared_->mutex);
  const bool is_long = shared_->walking && Clock::now() - shared_->since > kLong;
  const bool are_many = shared_->waiting.size() >= kMostWaiting;
  if ((is_long || are_many) && !std::exchange(shared_->told, true)) {
    log_event(LogLevel::kWarn, "adopt", "walk_takes_long",
              {{"waiting", shared_->waiting.size()},
               {"detail", "a thread of a pod holds the lock of its socket"}});
  }
  if (!are_many) {
    shared_->waiting.push_back({.netns = std::move(netns), .socket_cookie = socket_cookie});
    shared_->changed.notify_all();
  }
  return !are_many;
}

}  // namespace sidetrack::adopt
