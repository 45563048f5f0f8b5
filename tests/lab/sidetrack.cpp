// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/sidetrack.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include <nlohmann/json.hpp>

#include "sidetrack/unique_fd.h"
#include "tests/lab/http_get.h"
#include "tests/lab/netns.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

const milliseconds kStopPatience = scaled(milliseconds(5'000));

std::string namespace_of(const std::string& pod) {
  return pod.substr(0, pod.find('/'));
}
std::string name_of(const std::string& pod) {
  return pod.substr(pod.find('/') + 1);
}

}  // namespace

Result<BpfFileSystem> BpfFileSystem::mount(std::string path) {
  if (::mkdir(path.c_str(), 0700) != 0 || ::mount("bpf", path.c_str(), "bpf", 0, nullptr) != 0) {
    return errno_error("mount a bpffs at " + path, errno);
  }
  return BpfFileSystem(std::move(path));
}

BpfFileSystem::~BpfFileSystem() {
  if (!path_.empty()) {
    ::umount2(path_.c_str(), MNT_DETACH);
  }
}

Sidetrack::Sidetrack(TempDir folder, BpfFileSystem bpf, SidetrackOptions options)
    : folder_(std::move(folder)), bpf_(std::move(bpf)), options_(std::move(options)) {}

Result<std::unique_ptr<Sidetrack>> Sidetrack::create(const TestCgroup& cgroup,
                                                     const SidetrackOptions& options) {
  auto folder = TempDir::create("sidetrack");
  if (!folder) {
    return folder.error();
  }
  auto bpf = BpfFileSystem::mount(folder->file("bpf"));
  if (!bpf) {
    return bpf.error();
  }
  auto agent_cgroup = cgroup.child("agent");
  auto engine_cgroup = cgroup.child("engine");
  if (!agent_cgroup || !engine_cgroup) {
    return (agent_cgroup ? engine_cgroup : agent_cgroup).error();
  }
  std::error_code ignored;
  std::filesystem::create_directories(folder->path() / "state", ignored);
  std::filesystem::create_directories(folder->path() / "cache", ignored);
  std::unique_ptr<Sidetrack> sidetrack(new Sidetrack(std::move(*folder), std::move(*bpf), options));
  sidetrack->cgroup_path_ = cgroup.path();
  sidetrack->agent_cgroup_ = *agent_cgroup;
  sidetrack->engine_cgroup_ = *engine_cgroup;
  return sidetrack;
}

Sidetrack::~Sidetrack() {
  for (auto* engine : {&old_engine_, &engine_}) {
    if (*engine) {
      (*engine)->kill_hard();  // its graceful end takes a second; tests of that end it themselves
    }
  }
  if (agent_) {
    (void)agent_->terminate(kStopPatience);
  }
  // Also when no agent was ever started: then there is nothing to take back, which it says.
  (void)uninstall();
}

ProcessSpec Sidetrack::agent_spec() const {
  const std::string http =
      options_.netns_path.empty() ? "off" : fmt::format("127.0.0.1:{}", kAgentHttp);
  ProcessSpec spec{
      .arguments = {built_program("sidetrack-agent"), "run", "--node", options_.node_name,
                    "--state-dir", state_dir(), "--cache-dir", cache_dir(), "--pin-dir", pin_dir(),
                    "--cgroup", cgroup_path_, "--engine", options_.engine, "--http", http},
      .netns_path = options_.netns_path,
      .cgroup_path = agent_cgroup_,
      .log_file = folder_.file("agent.log")};
  if (!options_.objects_folder.empty()) {
    spec.arguments.insert(spec.arguments.end(), {"--objects", options_.objects_folder});
  }
  if (options_.engine == "embedded") {
    spec.arguments.insert(spec.arguments.end(), {"--engine-cgroup", engine_cgroup_});
  }
  spec.arguments.insert(spec.arguments.end(), {"--fast-path", options_.fast_path ? "auto" : "off"});
  spec.arguments.insert(spec.arguments.end(), options_.agent_arguments.begin(),
                        options_.agent_arguments.end());
  return spec;
}

bool lacks_a_helper(const std::string& problem) {
  return problem.find(": unknown func ") != std::string::npos ||
         problem.find(": invalid func ") != std::string::npos;
}

Result<void> Sidetrack::start_agent() {
  agent_.reset();
  auto started = Process::start(agent_spec());
  if (!started) {
    return started.error();
  }
  agent_ = std::move(*started);
  std::string refused;
  const auto is_up = [&] {
    const auto status = get("/v1/status");
    if (!status || !options_.fast_path) {
      return status.has_value();
    }
    const std::string reason = status->value("fast_path_reason", "");
    refused = reason.rfind("self_test: ", 0) == 0 && lacks_a_helper(reason) ? reason : "";
    return (*status)["fast_path"] == "on" || !refused.empty();
  };
  const bool came_up = eventually(3 * kPatience, [&] { return is_up() || !agent_->running(); });
  if (!refused.empty()) {
    return make_error(ErrorCode::kUnsupported, refused);
  }
  if (!came_up || !agent_->running()) {
    return make_error(ErrorCode::kBusy,
                      "the agent's admin socket does not answer; it said: " + agent_->output());
  }
  return {};
}

ProcessSpec Sidetrack::engine_spec() const {
  const std::string http = options_.engine_http ? fmt::format("127.0.0.1:{}", kEngineHttp) : "off";
  ProcessSpec spec{.arguments = options_.engine_launcher,
                   .netns_path = options_.netns_path,
                   .cgroup_path = engine_cgroup_,
                   .log_file = folder_.file("engine.log")};
  spec.arguments.insert(spec.arguments.end(), {built_program("sidetrack-engine"), "run",
                                               "--state-dir", state_dir(), "--http", http});
  spec.arguments.insert(spec.arguments.end(), options_.engine_arguments.begin(),
                        options_.engine_arguments.end());
  return spec;
}

Result<void> Sidetrack::start_engine() {
  auto started = Process::start(engine_spec());
  if (!started) {
    return started.error();
  }
  old_engine_ = std::move(engine_);
  engine_ = std::move(*started);
  const auto is_up = [&] {
    const auto status = get("/v1/status");
    if (!status) {
      return false;
    }
    for (const json& engine : status->value("engines", json::array())) {
      if (engine.value("pid", 0) == engine_->pid() && engine.value("state", "") == "up") {
        return true;
      }
    }
    return false;
  };
  if (!eventually(kPatience, [&] { return is_up() || !engine_->running(); }) ||
      !engine_->running()) {
    const auto status = get("/v1/status");
    return make_error(
        ErrorCode::kBusy,
        fmt::format(
            "the engine did not come up; it said: {}\nstatus: {}", engine_->output(),
            status ? status->value("engines", json::array()).dump() : status.error().message));
  }
  return {};
}

Result<void> Sidetrack::start() {
  ST_TRY(start_agent());
  return start_engine();
}

Result<json> Sidetrack::get(const std::string& target) const {
  auto answer = http_over_unix(state_dir() + "/admin.sock", {.target = target});
  if (!answer) {
    return answer.error();
  }
  json body = json::parse(answer->body, nullptr, false);
  if (answer->status != 200 || body.is_discarded()) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("GET {}: {} {}", target, answer->status, answer->body));
  }
  return body;
}

Result<std::string> Sidetrack::get_http(const std::string& target, std::uint16_t port) const {
  const UniqueFd netns(::open(options_.netns_path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!netns.valid()) {
    return errno_error("open netns \"" + options_.netns_path + "\"", errno);
  }
  std::string body;
  ST_TRY(run_in_netns(netns.get(), [&]() -> Result<void> {
    auto answer = http_over_tcp("127.0.0.1", port, {.target = target});
    if (!answer) {
      return answer.error();
    }
    if (answer->status != 200) {
      return make_error(ErrorCode::kBusy,
                        fmt::format("GET {}: {} {}", target, answer->status, answer->body));
    }
    body = std::move(answer->body);
    return {};
  }));
  return body;
}

std::optional<double> Sidetrack::metric(const std::string& series, std::uint16_t port) const {
  const auto text = get_http("/metrics", port);
  std::istringstream lines(text ? *text : "");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(series + " ")) {
      return std::strtod(line.c_str() + series.size(), nullptr);
    }
  }
  return std::nullopt;
}

Result<json> Sidetrack::pod(const std::string& pod) const {
  auto pods = get("/v1/pods?namespace=" + namespace_of(pod));
  if (!pods) {
    return pods.error();
  }
  for (const json& entry : (*pods)["pods"]) {
    if (entry.value("pod", "") == name_of(pod)) {
      return entry;
    }
  }
  return make_error(ErrorCode::kNotFound, "the agent shows no pod " + pod);
}

Result<void> Sidetrack::wait_for_pod(const std::string& pod, const std::string& state,
                                     const std::string& mode, milliseconds within) const {
  std::string last;
  const bool reached = eventually(within, [&] {
    const auto entry = this->pod(pod);
    last = entry ? entry->dump() : entry.error().message;
    return entry && entry->value("state", "") == state && entry->value("mode", "") == mode;
  });
  if (!reached) {
    return make_error(ErrorCode::kBusy, fmt::format("pod {} is not {} {} after {} ms: {}\n{}", pod,
                                                    state, mode, within.count(), last, logs()));
  }
  return {};
}

Result<json> Sidetrack::dump_map(const std::string& map) const {
  auto dump = run_command(
      {.arguments = {"bpftool", "-j", "map", "dump", "pinned", pin_dir() + "/v1/maps/" + map}});
  if (!dump) {
    return dump.error();
  }
  json rows = json::parse(dump->standard_output, nullptr, false);
  if (dump->exit_status != 0 || rows.is_discarded()) {
    return make_error(ErrorCode::kInvalid, "dump map " + map + ": " + dump->output);
  }
  return rows;
}

Result<CommandResult> Sidetrack::ctl(const std::vector<std::string>& arguments) const {
  CommandSpec spec{.arguments = {built_program("sidetrackctl"), "--state-dir", state_dir()}};
  spec.arguments.insert(spec.arguments.end(), arguments.begin(), arguments.end());
  return run_command(spec);
}

Result<CommandResult> Sidetrack::uninstall() {
  return run_command(
      {.arguments = {built_program("sidetrack-agent"), "uninstall", "--state-dir", state_dir(),
                     "--cache-dir", cache_dir(), "--pin-dir", pin_dir(), "--drain", "0s"}});
}

std::string Sidetrack::logs() const {
  std::string text;
  for (const auto& [name, process] : {std::pair<const char*, const Process*>{"agent", agent_.get()},
                                      {"engine", engine_.get()},
                                      {"old engine", old_engine_.get()}}) {
    if (process != nullptr) {
      text += fmt::format("--- {}\n{}", name, process->output());
    }
  }
  return text;
}

}  // namespace sidetrack::lab
