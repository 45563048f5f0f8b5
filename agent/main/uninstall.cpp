// SPDX-License-Identifier: Apache-2.0
#include "agent/main/uninstall.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "agent/dataplane/dataplane.h"
#include "agent/main/cgroups.h"
#include "agent/main/instance_lock.h"

namespace sidetrack::agent {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// Redirected connections that are still open, by the kernel's own count.
Result<std::int64_t> open_connections(const dataplane::Dataplane& dataplane) {
  auto pods = dataplane.pods();
  ST_TRY(pods);
  std::int64_t sum = 0;
  for (const auto& [cookie, row] : *pods) {
    auto state = dataplane.pod_state(cookie);
    ST_TRY(state);
    for (std::size_t i = 0; *state && i < std::size((*state)->budget); ++i) {
      sum += std::max<std::int64_t>(0, (*state)->budget[i].live);
    }
  }
  return sum;
}

Result<void> drain(const Options& options, const Cgroups& cgroups) {
  auto dataplane = dataplane::Dataplane::open(
      {.pin_dir = options.pin_dir, .cgroup_dir = cgroups.attach_dir, .engine_cgroup_dir = cgroups.engine_dir});
  ST_TRY(dataplane);
  auto pods = (*dataplane)->pods();
  ST_TRY(pods);
  for (auto& [cookie, row] : *pods) {
    row.mode = ST_MODE_DISABLED;
    ST_TRY((*dataplane)->upsert_pod(cookie, row));
  }
  const auto deadline = Clock::now() + options.drain;
  for (;;) {
    auto open = open_connections(**dataplane);
    ST_TRY(open);
    if (*open == 0) {
      return {};
    }
    if (Clock::now() >= deadline) {
      fmt::print("{} redirected connections were still open after {} s; they end when the engine does\n", *open,
                 options.drain.count());
      return {};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // waits for the connections' ends, with a deadline
  }
}

void remove_file(const std::string& path) {
  std::error_code error;
  if (fs::remove(path, error)) {
    fmt::print("removed {}\n", path);
  }
}

}  // namespace

Result<void> uninstall(const Options& options) {
  std::error_code error;
  const bool had_state = fs::exists(options.state_dir, error);
  auto lock = InstanceLock::acquire(options.state_dir);
  if (!lock) {
    return lock.error().code == ErrorCode::kBusy ? lock.error().within("stop it first") : lock.error();
  }
  if (fs::exists(options.pin_dir + "/v1/links", error)) {
    Options chosen = options;
    auto cgroups = prepare_cgroups(chosen);
    ST_TRY(cgroups);
    ST_TRY(drain(options, *cgroups));
    auto removed = dataplane::Dataplane::uninstall(options.pin_dir);
    ST_TRY(removed);
    for (const std::string& path : *removed) {
      fmt::print("removed {}\n", path);
    }
    if (options.engine_cgroup_dir.empty() && !cgroups->engine_dir.empty()) {
      if (rmdir(cgroups->engine_dir.c_str()) == 0) {
        fmt::print("removed {}\n", cgroups->engine_dir);
      } else if (errno == EBUSY) {
        fmt::print("kept {}: the engine still runs in it (it goes with the next uninstall)\n", cgroups->engine_dir);
      }
    }
  }
  for (const char* name : {"/admin.sock", "/engine.sock", "/agent.lock"}) {
    remove_file(options.state_dir + name);
  }
  if (fs::is_empty(options.state_dir, error) && fs::remove(options.state_dir, error) && had_state) {
    fmt::print("removed {}\n", options.state_dir);
  }
  fmt::print("nothing of Sidetrack is left in the kernel\n");
  return {};
}

}  // namespace sidetrack::agent
