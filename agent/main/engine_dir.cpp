// SPDX-License-Identifier: Apache-2.0
#include "agent/main/engine_dir.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <thread>
#include <vector>

#include "agent/main/cgroups.h"
#include "agent/pods/pod_cgroup.h"

namespace sidetrack::agent {

namespace {

namespace fs = std::filesystem;
using reconcile::EngineKind;

bool is_within(const fs::path& inner, const fs::path& outer) {
  const auto [outer_end, inner_at] =
      std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
  return outer_end == outer.end();
}

// "a, b and 3 more".
std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  return names.size() <= kShown ? text : fmt::format("{} and {} more", text, names.size() - kShown);
}

// `dir` and every cgroup below it, none before the one that it is in. What goes meanwhile is left
// out.
std::vector<fs::path> tree_of(const fs::path& dir) {
  std::vector<fs::path> folders{dir};
  for (std::size_t i = 0; i < folders.size(); ++i) {
    std::error_code error;
    fs::directory_iterator entry(folders[i], error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
      if (std::error_code gone; entry->is_directory(gone)) {
        folders.push_back(entry->path());
      }
    }
  }
  return folders;
}

// The folders of pods below the first of `tree`. The cgroup of an engine that is a pod itself is
// that pod's, or in it: what is below is the same pod's.
std::vector<std::string> pods_below(const std::vector<fs::path>& tree) {
  std::map<std::string, std::string> folders;  // by the pod's uid
  for (const fs::path& folder : tree) {
    const std::string below = folder.lexically_relative(tree.front()).string();
    if (const auto pod = pods::parse_pod_cgroup(below)) {
      folders.emplace(pod->pod_uid, below);
    }
  }
  std::vector<std::string> names;
  std::transform(folders.begin(), folders.end(), std::back_inserter(names),
                 [](const auto& folder) { return folder.second; });
  return names;
}

std::string command_of(std::int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/comm", pid));
  std::string command;
  std::getline(file, command);
  return command;
}

// A process that we may not look at counts as one of ours.
bool is_in_other_netns(std::int64_t pid) {
  struct stat own {};
  struct stat its {};
  return stat("/proc/self/ns/net", &own) == 0 &&
         stat(fmt::format("/proc/{}/ns/net", pid).c_str(), &its) == 0 &&
         (own.st_dev != its.st_dev || own.st_ino != its.st_ino);
}

// "4711 (sleep)" if the process cannot be the engine's, else "".
std::string stranger(EngineKind kind, std::int64_t pid) {
  const std::string command = command_of(pid);
  if (command.empty()) {
    return "";  // it has ended, or is of a PID namespace that we do not see
  }
  if (kind == EngineKind::kEmbedded) {
    // The kernel cuts names to 15 bytes.
    return command == "sidetrack-engin" ? "" : fmt::format("{} ({})", pid, command);
  }
  // How many programs a proxy has, nobody knows. But it is on the node, and pods are not.
  if (is_in_other_netns(pid)) {
    return fmt::format("{} ({}, in another network namespace)", pid, command);
  }
  return pid == getpid() ? fmt::format("{} ({}, this agent)", pid, command) : "";
}

// By pid.
Result<std::map<std::int64_t, std::string>> strangers_in(EngineKind kind,
                                                         const std::vector<fs::path>& tree) {
  std::map<std::int64_t, std::string> strangers;
  for (const fs::path& folder : tree) {
    const auto members = processes_of(folder.string());
    if (!members && folder == tree.front()) {
      return members.error();
    }
    for (const std::int64_t pid : members.value_or({})) {
      if (std::string name = stranger(kind, pid); !name.empty()) {
        strangers.emplace(pid, std::move(name));
      }
    }
  }
  return strangers;
}

// What is between fork and exec has the name of what made it; what it becomes counts.
Result<std::vector<std::string>> lasting_strangers(EngineKind kind,
                                                   const std::vector<fs::path>& tree,
                                                   const std::function<void()>& wait) {
  const auto before = strangers_in(kind, tree);
  ST_TRY(before);
  std::vector<std::string> names;
  if (before->empty()) {
    return names;
  }
  wait();
  auto after = strangers_in(kind, tree_of(tree.front()));
  ST_TRY(after);
  for (auto& [pid, name] : *after) {
    if (before->contains(pid)) {
      names.push_back(std::move(name));
    }
  }
  return names;
}

Result<void> check_members(EngineKind kind, const std::string& engine_dir, const fs::path& engine,
                           const std::function<void()>& wait) {
  const std::vector<fs::path> tree = tree_of(engine);
  if (const auto pods = pods_below(tree); !pods.empty()) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("--engine-cgroup {} is above pods: {}; they would count as the "
                                  "engine. Give the engine a cgroup of its own",
                                  engine_dir, some_of(pods)));
  }
  const auto strangers = lasting_strangers(kind, tree, wait);
  ST_TRY(strangers);
  if (!strangers->empty()) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("--engine-cgroup {} holds other processes: {}; they would count "
                                  "as the engine. Give the engine a cgroup of its own",
                                  engine_dir, some_of(*strangers)));
  }
  return {};
}

}  // namespace

void wait_for_exec() {
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

Result<void> check_engine_dir(EngineKind kind, const std::string& attach_dir,
                              const std::string& engine_dir, const std::function<void()>& wait) {
  std::error_code error;
  const fs::path engine = fs::canonical(engine_dir, error);
  if (error) {
    return errno_error("cgroup " + engine_dir, error.value());
  }
  const fs::path attach = fs::canonical(attach_dir, error);
  if (error) {
    return errno_error("cgroup " + attach_dir, error.value());
  }
  if (engine == attach || is_within(attach, engine)) {
    return make_error(
        ErrorCode::kInvalid,
        fmt::format(
            "--engine-cgroup {} is {} itself or above it: every pod would count as the engine",
            engine_dir, attach_dir));
  }
  if (!is_within(engine, attach)) {
    return make_error(
        ErrorCode::kInvalid,
        fmt::format(
            "--engine-cgroup {} is not below {}: the programs would not see the engine's sockets",
            engine_dir, attach_dir));
  }
  return check_members(kind, engine_dir, engine, wait);
}

}  // namespace sidetrack::agent
