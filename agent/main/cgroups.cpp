// SPDX-License-Identifier: Apache-2.0
#include "agent/main/cgroups.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "agent/dataplane/dataplane.h"
#include "agent/dataplane/others.h"
#include "agent/dataplane/pinned.h"
#include "agent/main/engine_dir.h"
#include "agent/pods/pod_cgroup.h"
#include "sidetrack/cgroup/process_cgroup.h"

namespace sidetrack::agent {

namespace {

namespace fs = std::filesystem;

Result<std::string> real_root() {
  auto dir = cgroup::find_hierarchy();
  ST_TRY(dir);
  auto id = dataplane::cgroup_id(*dir);
  ST_TRY(id);
  ST_TRY(check_root(*dir, *id));
  return dir;
}

// A folder that an option names is configuration: whatever is wrong with it, the option is.
Result<std::uint64_t> id_of_option(const char* option, const std::string& dir) {
  auto id = dataplane::cgroup_id(dir);
  if (!id) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("{} {}: {}", option, dir, id.error().message));
  }
  return id;
}

// To take over programs that are attached elsewhere is to stop redirecting there, without a word.
Result<void> check_pins(const Options& options, const Cgroups& cgroups) {
  const std::uint64_t pinned = dataplane::pinned_cgroup(options.pin_dir);
  if (pinned == 0 || pinned == cgroups.attach_id) {
    return {};
  }
  return make_error(
      ErrorCode::kInvalid,
      fmt::format("the programs pinned in {} are attached to cgroup {}, not to {}: run "
                  "sidetrack-agent uninstall --pin-dir {} first, or choose that --cgroup",
                  options.pin_dir,
                  dataplane::cgroup_folder(pinned, cgroups.attach_dir)
                      .value_or(fmt::format("with id {}", pinned)),
                  cgroups.attach_dir, options.pin_dir));
}

// Two installations that see the same connect() would redirect it twice.
Result<void> check_others(const Options& options, const Cgroups& cgroups) {
  auto others = others_that_stay(options, cgroups.attach_dir);
  if (!others && others.error().code == ErrorCode::kPermission) {
    return {};  // loading the programs fails next, and says which rights are needed
  }
  ST_TRY(others);
  if (others->empty()) {
    return {};
  }
  const dataplane::OtherInstallation& other = others->front();
  std::string where = "; its pins are in no bpf file system that this process sees";
  std::string action = fmt::format(
      "look for its agent and its --pin-dir (bpftool prog show id {}; a container may have a bpf "
      "file system of its own) and uninstall it there",
      other.program_id);
  const bool same = other.relation == dataplane::Relation::kSame;
  if (!other.pin_dir.empty()) {
    where = fmt::format(", pinned at {}{}", other.pin_dir,
                        other.agent_runs ? ", its agent runs" : ", no agent runs");
    action =
        fmt::format("{}{}remove it: sidetrack-agent uninstall --pin-dir {}",
                    other.agent_runs ? "end that agent; then " : "",
                    same ? fmt::format("take it over with --pin-dir {}, or ", other.pin_dir) : "",
                    other.pin_dir);
  }
  return make_error(
      ErrorCode::kInvalid,
      fmt::format(
          "another Sidetrack is attached to cgroup {}{}: program st_connect4 (id {}){}. Both would "
          "redirect the same connections: {}{}",
          other.cgroup_dir,
          same ? ""
               : fmt::format(", {} our {}",
                             other.relation == dataplane::Relation::kAbove ? "above" : "below",
                             cgroups.attach_dir),
          other.program_id, where, action,
          same ? "" : ", or give the two a --cgroup of which neither holds the other"));
}

// Whether kubelet made our cgroup: then the engine is another container of our pod, and taking it
// out of that container's cgroup would take it out of the container's limits.
bool runs_in_pod() {
  const auto dir = cgroup::folder_of_process(getpid());
  return dir && pods::parse_pod_cgroup(*dir).has_value();
}

}  // namespace

// In a container's cgroup namespace the visible root is not the real one: programs there would see
// only the container.
Result<void> check_root(const std::string& dir, std::uint64_t id) {
  if (id == ST_ROOT_CGROUP_ID) {
    return {};
  }
  return make_error(ErrorCode::kInvalid,
                    fmt::format("{} is not the root of cgroup2 (its id is {}, not {}): we are in "
                                "a cgroup namespace. Mount the host's cgroup2 into this "
                                "container, and give it hostPID, SYS_ADMIN and SYS_PTRACE",
                                dir, id, ST_ROOT_CGROUP_ID));
}

Result<std::vector<std::int64_t>> processes_of(const std::string& dir) {
  std::ifstream file(dir + "/cgroup.procs");
  if (!file) {
    return errno_error("read " + dir + "/cgroup.procs", errno);
  }
  std::vector<std::int64_t> pids;
  for (std::int64_t pid = 0; file >> pid;) {
    pids.push_back(pid);
  }
  return pids;
}

Result<void> move_to_cgroup(const std::string& dir, std::int64_t pid) {
  auto members = processes_of(dir);
  ST_TRY(members);
  if (std::find(members->begin(), members->end(), pid) != members->end()) {
    return {};
  }
  std::ofstream file(dir + "/cgroup.procs");
  file << pid << std::flush;
  if (!file) {
    return errno_error(fmt::format("move process {} to {}", pid, dir), errno);
  }
  return {};
}

Result<std::string> attach_dir(const Options& options) {
  if (options.cgroup_dir.empty()) {
    return real_root();
  }
  auto id = id_of_option("--cgroup", options.cgroup_dir);
  ST_TRY(id);
  return options.cgroup_dir;
}

Result<std::vector<dataplane::OtherInstallation>> others_that_stay(const Options& options,
                                                                   const std::string& dir) {
  constexpr std::chrono::seconds kPatience{2};
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    auto others = dataplane::other_installations(dir, options.pin_dir);
    ST_TRY(others);
    const bool may_go = std::any_of(others->begin(), others->end(),
                                    [](const auto& one) { return one.pin_dir.empty(); });
    if (!may_go || std::chrono::steady_clock::now() >= deadline) {
      return others;
    }
    std::this_thread::sleep_for(
        std::chrono::milliseconds(20));  // waits for the kernel, with a deadline
  }
}

Result<std::string> default_engine_cgroup(const Options& options) {
  auto attach = attach_dir(options);
  ST_TRY(attach);
  return *attach + "/sidetrack-engine";
}

Result<Cgroups> find_cgroups(const Options& options) {
  Cgroups cgroups;
  auto attach = attach_dir(options);
  ST_TRY(attach);
  cgroups.attach_dir = *attach;
  auto attach_id = dataplane::cgroup_id(cgroups.attach_dir);
  ST_TRY(attach_id);
  cgroups.attach_id = *attach_id;
  ST_TRY(check_pins(options, cgroups));
  ST_TRY(check_others(options, cgroups));
  if (options.engine == reconcile::EngineKind::kNone) {
    return cgroups;
  }
  cgroups.engine_dir = options.engine_cgroup_dir;
  if (cgroups.engine_dir.empty()) {
    if (options.engine == reconcile::EngineKind::kExternal) {
      return make_error(
          ErrorCode::kInvalid,
          "--engine external needs --engine-cgroup: the cgroup that the proxy runs in, alone");
    }
    if (runs_in_pod()) {
      cgroups.engine_in_container = true;
      return cgroups;
    }
    auto made = default_engine_cgroup(options);
    ST_TRY(made);
    cgroups.engine_dir = *made;
    if (std::error_code error; !fs::exists(cgroups.engine_dir, error)) {
      return cgroups;
    }
  }
  auto engine_id = id_of_option("--engine-cgroup", cgroups.engine_dir);
  ST_TRY(engine_id);
  cgroups.engine_id = *engine_id;
  ST_TRY(check_engine_dir(options.engine, cgroups.attach_dir, cgroups.engine_dir));
  return cgroups;
}

Result<void> make_engine_cgroup(Cgroups& cgroups) {
  if (cgroups.engine_dir.empty() || cgroups.engine_id != 0) {
    return {};
  }
  if (mkdir(cgroups.engine_dir.c_str(), 0755) != 0 && errno != EEXIST) {
    return errno_error("make cgroup " + cgroups.engine_dir, errno);
  }
  auto id = dataplane::cgroup_id(cgroups.engine_dir);
  ST_TRY(id);
  cgroups.engine_id = *id;
  return {};
}

Result<std::string> container_cgroup(const Options& options, const Cgroups& cgroups,
                                     std::int64_t pid) {
  auto dir = cgroup::folder_of_process(pid);
  ST_TRY(dir);
  // An engine that is refused asks again: the agent's loop does not wait for a stranger to go.
  ST_TRY(check_engine_dir(options.engine, cgroups.attach_dir, *dir, [] {}));
  return dir;
}

}  // namespace sidetrack::agent
