// SPDX-License-Identifier: Apache-2.0
#include "agent/main/uninstall.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "agent/dataplane/dataplane.h"
#include "agent/dataplane/others.h"
#include "agent/dataplane/pinned.h"
#include "agent/main/cgroups.h"
#include "agent/main/instance_lock.h"
#include "agent/main/kubernetes_node.h"
#include "agent/selftest/self_test.h"
#include "cni/install/installer.h"
#include "sidetrack/cli/say.h"
#include "sidetrack/files/whole_file.h"

namespace sidetrack::agent {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// Once nothing is redirected any more.
Result<void> drain(const Options& options) {
  const auto deadline = Clock::now() + options.drain;
  for (;;) {
    auto open = dataplane::open_redirected(options.pin_dir);
    ST_TRY(open);
    if (*open == 0) {
      return {};
    }
    if (Clock::now() >= deadline) {
      cli::say(fmt::format(
          "{} redirected connections were still open after {} s; they end when the engine does\n",
          *open, options.drain.count()));
      return {};
    }
    std::this_thread::sleep_for(
        std::chrono::milliseconds(100));  // waits for the connections' ends, with a deadline
  }
}

// The folder of the engine, if an agent with these options made it and nothing uses it: `ids` are
// what the pins named, none when there are none (any more). Then it counts as left over unless
// another installation has its programs on it.
Result<std::string> made_engine_cgroup(const Options& options,
                                       const std::vector<std::uint64_t>& ids) {
  if (!options.engine_cgroup_dir.empty()) {
    return std::string();
  }
  const auto dir = default_engine_cgroup(options);
  if (!dir && !options.cgroup_dir.empty()) {
    return dir.error();  // --cgroup is wrong
  }
  const auto found = dir ? dataplane::cgroup_id(*dir) : dir.error();
  if (!found) {
    return std::string();
  }
  if (!ids.empty()) {
    return std::find(ids.begin(), ids.end(), *found) != ids.end() ? *dir : std::string();
  }
  auto used = dataplane::is_engine_cgroup(*dir);
  ST_TRY(used);
  return *used ? std::string() : *dir;
}

// Not to be seen is not gone: "nothing is left" would be said of what is there.
Result<bool> is_there(const std::string& path) {
  std::error_code error;
  const bool found = fs::exists(path, error);
  return error ? Result<bool>(errno_error("look at " + path, error.value())) : found;
}

enum class Outcome { kRemoved, kKept };

Result<Outcome> remove_cgroup(const std::string& dir) {
  if (rmdir(dir.c_str()) == 0) {
    cli::say(fmt::format("removed {}\n", dir));
    return Outcome::kRemoved;
  }
  if (errno != EBUSY) {
    return errno_error("remove " + dir, errno);
  }
  cli::say(fmt::format(
      "kept {}: the engine still runs in it; uninstall again when that has ended\n", dir));
  return Outcome::kKept;
}

void remove_file(const std::string& path) {
  std::error_code error;
  if (fs::remove(path, error)) {
    cli::say(fmt::format("removed {}\n", path));
  }
}

void remove_state(const std::string& state_dir) {
  std::error_code error;
  for (const char* name : {"/admin.sock", "/engine.sock", "/cni.sock", "/agent.lock"}) {
    remove_file(state_dir + name);
  }
  if (fs::is_empty(state_dir, error) && fs::remove(state_dir, error)) {
    cli::say(fmt::format("removed {}\n", state_dir));
  }
}

// What source `kubernetes` and the plugin keep over a reboot. The folder may be a mount point of a
// container: then it stays, empty.
void remove_cache(const std::string& cache_dir) {
  std::error_code error;
  files::remove_leftovers(cache_dir);
  for (const char* name : {"/enrolled-namespaces", "/fast-path-workloads.json", "/cni.log"}) {
    remove_file(cache_dir + name);
  }
  if (fs::remove_all(cache_dir + "/kubernetes", error) > 0 && !error) {
    cli::say(fmt::format("removed {}/kubernetes\n", cache_dir));
  }
  if (fs::is_empty(cache_dir, error) && fs::remove(cache_dir, error)) {
    cli::say(fmt::format("removed {}\n", cache_dir));
  }
}

struct Left {
  std::vector<std::string> lines;  // one for each other installation
  bool in_our_place = false;       // one of them is attached where ours was
};

// Programs of others that see what ours saw, or a part of it.
Result<Left> left_in_kernel(const Options& options, const std::string& attached_to) {
  auto others = others_that_stay(options, attached_to);
  ST_TRY(others);
  Left left;
  for (const dataplane::OtherInstallation& other : *others) {
    left.in_our_place = left.in_our_place || other.relation == dataplane::Relation::kSame;
    left.lines.push_back(fmt::format(
        "left program st_connect4 (id {}) on cgroup {}: {}", other.program_id, other.cgroup_dir,
        other.pin_dir.empty()
            ? "its pins are in no bpf file system that this process sees"
            : fmt::format("{}remove it with sidetrack-agent uninstall --pin-dir {}",
                          other.agent_runs ? "another agent's; end that, then " : "",
                          other.pin_dir)));
  }
  return left;
}

// What self-tests that were killed have left beside us.
void remove_self_tests(const Options& options, const std::string& attached_to) {
  for (const std::string& path :
       selftest::clean_up({.cgroup_dir = attached_to, .pin_dir = options.pin_dir})) {
    cli::say(fmt::format("removed {}\n", path));
  }
}

}  // namespace

Result<void> retract_plugin(const Options& options) {
  if (options.cni.conf_dir.empty()) {
    return {};
  }
  if (options.keep_conflist) {
    cli::say(fmt::format("kept sidetrack-cni in {} and {}\n", options.cni.conf_dir,
                         options.cni.bin_dir));
    return {};
  }
  const auto done = cni::install::uninstall(installer_settings(options));
  for (const std::string& left : done.left) {
    cli::say(fmt::format("left {}\n", left));
  }
  if (!done.left.empty()) {
    return make_error(
        ErrorCode::kBusy,
        fmt::format("sidetrack-cni is not wholly out of {}: correct what is named above (the "
                    "folders are those of --cni-conf-dir and --cni-bin-dir) and uninstall again",
                    options.cni.conf_dir));
  }
  cli::say(fmt::format("sidetrack-cni is out of {}\n", options.cni.conf_dir));
  return {};
}

Result<void> uninstall(const Options& options) {
  // No folder, no agent with these options; one with other options but the same pins is refused
  // below.
  const auto has_state = is_there(options.state_dir);
  ST_TRY(has_state);
  std::optional<InstanceLock> lock;
  if (*has_state) {
    auto held = InstanceLock::acquire(options.state_dir);
    if (!held) {
      return held.error().code == ErrorCode::kBusy ? held.error().within("stop it first")
                                                   : held.error();
    }
    lock = std::move(*held);
  }
  const auto has_pins = is_there(options.pin_dir + "/v1/links");
  ST_TRY(has_pins);
  std::vector<std::uint64_t> engine_cgroups;
  if (*has_pins) {
    auto pinned = dataplane::pinned_engine_cgroups(options.pin_dir);
    ST_TRY(pinned);
    engine_cgroups = *pinned;
  }
  const auto made = made_engine_cgroup(options, engine_cgroups);
  ST_TRY(made);
  // Before anything that takes time: engines may be ending, too, and where `closed` holds their
  // pods' connections would be refused.
  ST_TRY(dataplane::stop_redirecting(options.pin_dir));
  // Early: from then on the runtime asks nobody of us for new pods. All else goes whatever became
  // of it.
  const auto retracted = retract_plugin(options);
  if (*has_pins) {
    ST_TRY(drain(options));
    auto removed = dataplane::Dataplane::uninstall(options.pin_dir);
    ST_TRY(removed);
    for (const std::string& path : *removed) {
      cli::say(fmt::format("removed {}\n", path));
    }
  }
  const auto outcome = made->empty() ? Result(Outcome::kRemoved) : remove_cgroup(*made);
  ST_TRY(outcome);
  if (*has_state) {
    remove_state(options.state_dir);
  }
  remove_cache(options.cache_dir);
  std::string whose = "Sidetrack";
  // Without cgroup2 nothing can be attached.
  if (const auto attached_to = attach_dir(options)) {
    remove_self_tests(options, *attached_to);
    auto left = left_in_kernel(options, *attached_to);
    ST_TRY(left);
    for (const std::string& line : left->lines) {
      cli::say(line + "\n");
    }
    if (left->in_our_place) {
      return make_error(ErrorCode::kBusy, "another Sidetrack is attached to cgroup " +
                                              *attached_to + "; ours is gone");
    }
    whose = left->lines.empty() ? whose : "what was pinned at " + options.pin_dir;
  }
  cli::say(fmt::format("{} of {} is left in the kernel\n",
                       *outcome == Outcome::kKept ? "nothing but this cgroup" : "nothing", whose));
  return retracted;
}

}  // namespace sidetrack::agent
