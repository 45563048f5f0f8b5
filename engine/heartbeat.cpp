// SPDX-License-Identifier: Apache-2.0
#include "engine/heartbeat.h"

#include <fmt/core.h>
#include <pthread.h>
#include <sys/mman.h>

#include <cerrno>
#include <chrono>

#include "sidetrack/log/log.h"

namespace sidetrack::engine {
namespace {

constexpr std::chrono::milliseconds kPeriod(50);
constexpr std::int64_t kTurnStaleNs = 500'000'000;
// Log, sockets of our own, epoll and event descriptors: what does not grow with the traffic.
constexpr std::uint64_t kOtherFiles = 64;
constexpr std::uint64_t kFullPercent = 90;
constexpr std::uint64_t kNotFullPercent = 85;
constexpr std::size_t kMapBytes = sizeof(st_engine) * ST_MAX_ENGINES;

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Heartbeat::Heartbeat(const Engine& engine, std::uint64_t files_limit)
    : engine_(engine),
      files_limit_(files_limit),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

Heartbeat::~Heartbeat() {
  thread_.request_stop();
  thread_.join();
  {
    const std::lock_guard lock(mutex_);
    if (cell_ != nullptr) {
      std::atomic_ref(cell_->beat_ns)
          .store(0, std::memory_order_release);  // at once, not when it is stale
    }
  }
  detach();
}

Result<void> Heartbeat::attach(const UniqueFd& map, std::uint16_t slot) {
  if (slot >= ST_MAX_ENGINES) {
    return make_error(ErrorCode::kInvalid, fmt::format("no cell {} in st_engines", slot));
  }
  void* const mapping =
      ::mmap(nullptr, kMapBytes, PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
  if (mapping == MAP_FAILED) {
    return errno_error("map st_engines", errno);
  }
  detach();
  {
    const std::lock_guard lock(mutex_);
    mapping_ = mapping;
    cell_ = static_cast<st_engine*>(mapping) + slot;
  }
  beat();
  return {};
}

void Heartbeat::detach() {
  const std::lock_guard lock(mutex_);
  if (mapping_ != nullptr) {
    ::munmap(mapping_, kMapBytes);
    mapping_ = nullptr;
    cell_ = nullptr;
  }
}

bool Heartbeat::healthy() const {
  return now_ns() - engine_.slowest_turn_ns() < kTurnStaleNs;
}

std::uint64_t Heartbeat::files_used() const {
  return kOtherFiles + engine_.pod_files() + 2 * engine_.totals().connections;
}

void Heartbeat::run(const std::stop_token& stop) {
  ::pthread_setname_np(::pthread_self(), "heartbeat");
  while (!stop.stop_requested()) {
    beat();
    std::this_thread::sleep_for(kPeriod);
  }
}

void Heartbeat::beat() {
  const std::lock_guard lock(mutex_);
  const std::uint64_t percent = files_used() * 100 / files_limit_;
  if (const bool full = percent >= (full_ ? kNotFullPercent : kFullPercent); full != full_) {
    full_ = full;
    log_event(full ? LogLevel::kWarn : LogLevel::kInfo, "engine",
              full ? "files_full" : "files_free",
              {{"used", std::to_string(files_used())}, {"limit", std::to_string(files_limit_)}});
  }
  if (cell_ == nullptr || !healthy()) {
    return;
  }
  std::atomic_ref(cell_->full).store(full_ ? 1U : 0U, std::memory_order_relaxed);
  std::atomic_ref(cell_->beat_ns).store(static_cast<__u64>(now_ns()), std::memory_order_release);
}

}  // namespace sidetrack::engine
