// SPDX-License-Identifier: Apache-2.0
// Heartbeat: a thread that tells the kernel, through this engine's cell of the map st_engines, that
// the workers turn and whether there are files left. Without a beat for 1 s the kernel sends
// nothing more here.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

#include "engine/engine.h"
#include "sidetrack/abi/types.h"
#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engine {

class Heartbeat {
 public:
  // `engine` must outlive it. `files_limit`: RLIMIT_NOFILE.
  Heartbeat(const Engine& engine, std::uint64_t files_limit);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // Beats in cell `slot` of the map from now on, and no more in an earlier one.
  [[nodiscard]] Result<void> attach(const UniqueFd& map, std::uint16_t slot);

  // Whether all workers have turned lately.
  [[nodiscard]] bool healthy() const;
  // Descriptors in use, as far as they matter.
  [[nodiscard]] std::uint64_t files_used() const;
  [[nodiscard]] std::uint64_t files_limit() const { return files_limit_; }

 private:
  void run(const std::stop_token& stop);
  void beat();
  void detach();

  const Engine& engine_;
  std::uint64_t files_limit_;
  bool full_ = false;
  std::mutex mutex_;
  void* mapping_ = nullptr;  // guarded by mutex_, as is cell_
  st_engine* cell_ = nullptr;
  std::jthread thread_;
};

}  // namespace sidetrack::engine
