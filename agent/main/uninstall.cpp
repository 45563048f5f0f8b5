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

Result<void> drain(const Options& options) {
  ST_TRY(dataplane::stop_redirecting(options.pin_dir));
  const auto deadline = Clock::now() + options.drain;
  for (;;) {
    auto open = dataplane::open_redirected(options.pin_dir);
    ST_TRY(open);
    if (*open == 0) {
      return {};
    }
    if (Clock::now() >= deadline) {
      fmt::print(
          "{} redirected connections were still open after {} s; they end when the engine does\n",
          *open, options.drain.count());
      return {};
    }
    std::this_thread::sleep_for(
        std::chrono::milliseconds(100));  // waits for the connections' ends, with a deadline
  }
}

// The folder that an agent with these options made for its engine, if `id` is that folder's.
std::string made_engine_cgroup(const Options& options, std::uint64_t id) {
  if (!options.engine_cgroup_dir.empty() || id == 0) {
    return "";
  }
  const auto dir = default_engine_cgroup(options);
  const auto found = dir ? dataplane::cgroup_id(*dir) : dir.error();
  return found && *found == id ? *dir : "";
}

void remove_cgroup(const std::string& dir) {
  if (rmdir(dir.c_str()) == 0) {
    fmt::print("removed {}\n", dir);
  } else if (errno == EBUSY) {
    fmt::print("kept {}: the engine still runs in it; remove it when that has ended\n", dir);
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
    return lock.error().code == ErrorCode::kBusy ? lock.error().within("stop it first")
                                                 : lock.error();
  }
  if (fs::exists(options.pin_dir + "/v1/links", error)) {
    auto engine_cgroup = dataplane::pinned_engine_cgroup(options.pin_dir);
    ST_TRY(engine_cgroup);
    ST_TRY(drain(options));
    auto removed = dataplane::Dataplane::uninstall(options.pin_dir);
    ST_TRY(removed);
    for (const std::string& path : *removed) {
      fmt::print("removed {}\n", path);
    }
    if (const std::string dir = made_engine_cgroup(options, *engine_cgroup); !dir.empty()) {
      remove_cgroup(dir);
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
