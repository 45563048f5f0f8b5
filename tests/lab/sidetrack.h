// SPDX-License-Identifier: Apache-2.0
// Sidetrack: one installation of agent and engine for a test, with folders, pins (on a bpffs of its
// own) and cgroups that nobody else uses, so that several run side by side. The destructor stops
// both, uninstalls and removes everything, also after a failure. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "sidetrack/result.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/process.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {

// A bpffs mounted in a folder of the test's own.
class BpfFileSystem {
 public:
  static Result<BpfFileSystem> mount(std::string path);
  BpfFileSystem(BpfFileSystem&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  BpfFileSystem& operator=(BpfFileSystem&&) = delete;
  BpfFileSystem(const BpfFileSystem&) = delete;
  BpfFileSystem& operator=(const BpfFileSystem&) = delete;
  ~BpfFileSystem();
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit BpfFileSystem(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// Whether the fast path's programs cannot be loaded because this kernel lacks a function that they
// call: the verifier's words in the problem that the self-test names. All else is a fault of ours.
[[nodiscard]] bool lacks_a_helper(const std::string& problem);

// --http of agent and engine; the netns is the test's own.
inline constexpr std::uint16_t kAgentHttp = 15880;
inline constexpr std::uint16_t kEngineHttp = 15881;

struct SidetrackOptions {
  std::string objects_folder{};  // empty: agent_arguments say where objects come from
  std::string node_name{"node-1"};
  std::string engine{"embedded"};
  std::string netns_path{};  // where agent and engine run: the lab's node; empty: the machine's,
                             // without --http
  bool fast_path = false;    // start_agent() then waits until it is on: the self-test takes a while
  bool engine_http = false;  // the engine's own --http, too
  std::vector<std::string> agent_arguments{};
  std::vector<std::string> engine_arguments{};
  std::vector<std::string> engine_launcher{};  // becomes the engine: {"prlimit", "--nofile=300"}
};

class Sidetrack {
 public:
  // Makes folders, bpffs and the cgroups "agent", "engine" below `cgroup`; starts nothing. `cgroup`
  // must outlive it.
  static Result<std::unique_ptr<Sidetrack>> create(const TestCgroup& cgroup,
                                                   const SidetrackOptions& options);
  Sidetrack(const Sidetrack&) = delete;
  Sidetrack& operator=(const Sidetrack&) = delete;
  ~Sidetrack();

  // Starts it (again) and waits until its admin socket answers.
  Result<void> start_agent();
  // Starts another engine (beside a running one: upgrade) and waits until the agent shows it as up.
  // The one before becomes old_engine().
  Result<void> start_engine();
  // start_agent and start_engine.
  Result<void> start();

  // What start_agent() and start_engine() run, for tests that start one in another way.
  [[nodiscard]] ProcessSpec agent_spec() const;
  [[nodiscard]] ProcessSpec engine_spec() const;

  [[nodiscard]] Process& agent() { return *agent_; }
  [[nodiscard]] Process& engine() { return *engine_; }
  [[nodiscard]] Process& old_engine() { return *old_engine_; }

  // GET of the admin socket, status 200 ("/v1/status").
  [[nodiscard]] Result<nlohmann::json> get(const std::string& target) const;
  // GET of --http, from where the agent runs: "/readyz", "/metrics". Only with a netns_path.
  [[nodiscard]] Result<std::string> get_http(const std::string& target,
                                             std::uint16_t port = kAgentHttp) const;
  // What /metrics says of one series now ("sidetrack_pods{state=\"wanted\"}"); nothing if it has
  // none.
  [[nodiscard]] std::optional<double> metric(const std::string& series,
                                             std::uint16_t port = kAgentHttp) const;
  // Waits until `pod` ("NAMESPACE/POD") is in `state` ("enrolled") with `mode`.
  Result<void> wait_for_pod(const std::string& pod, const std::string& state,
                            const std::string& mode, milliseconds within = kPatience) const;
  // The pod's entry of /v1/pods. kNotFound.
  [[nodiscard]] Result<nlohmann::json> pod(const std::string& pod) const;
  // The rows of one of its pinned maps as bpftool shows them ("st_pods").
  [[nodiscard]] Result<nlohmann::json> dump_map(const std::string& map) const;
  // sidetrackctl --state-dir ... ARGUMENTS.
  [[nodiscard]] Result<CommandResult> ctl(const std::vector<std::string>& arguments) const;
  // sidetrack-agent uninstall; nothing is drained.
  Result<CommandResult> uninstall();

  [[nodiscard]] std::string state_dir() const { return folder_.file("state"); }
  [[nodiscard]] std::string cache_dir() const { return folder_.file("cache"); }
  [[nodiscard]] std::string pin_dir() const { return bpf_.path() + "/sidetrack"; }
  [[nodiscard]] const std::string& cgroup_path() const { return cgroup_path_; }
  [[nodiscard]] const std::string& engine_cgroup() const { return engine_cgroup_; }
  // What agent and engines said, for failure messages.
  [[nodiscard]] std::string logs() const;

 private:
  Sidetrack(TempDir folder, BpfFileSystem bpf, SidetrackOptions options);

  TempDir folder_;
  BpfFileSystem bpf_;
  SidetrackOptions options_;
  std::string cgroup_path_;
  std::string agent_cgroup_;
  std::string engine_cgroup_;
  std::unique_ptr<Process> agent_;
  std::unique_ptr<Process> engine_;
  std::unique_ptr<Process> old_engine_;
};

}  // namespace sidetrack::lab
