// SPDX-License-Identifier: Apache-2.0
// The node of the soak: pods, policy, programs.
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include <csignal>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "tests/soak/soak.h"

namespace sidetrack::soak {

namespace {

using lab::eventually;
using lab::kPatience;
using lab::milliseconds;
using lab::scaled;

std::string target(const std::string& address, std::uint16_t port) {
  return fmt::format("{}/{}", address, port);
}

// Children of MPTCP listeners in a sockmap crash kernels before 6.18 (docs/kernels.md). None is put
// there on purpose: this is for the day on which one is.
bool mptcp_is_safe() {
  utsname kernel{};
  unsigned major = 0;
  unsigned minor = 0;
  ::uname(&kernel);
  return std::sscanf(kernel.release, "%u.%u", &major, &minor) == 2 &&
         std::pair(major, minor) >= std::pair(6U, 18U) &&
         UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP)).valid();
}

}  // namespace

Result<void> Soak::set_up_node() {
  auto cgroup = lab::TestCgroup::create("soak");
  ST_TRY(cgroup);
  cgroup_ = std::make_unique<lab::TestCgroup>(std::move(*cgroup));
  auto folder = lab::TempDir::create("objects");
  ST_TRY(folder);
  folder_ = std::make_unique<lab::TempDir>(std::move(*folder));
  objects_ = std::make_unique<lab::Objects>(folder_->path());
  auto made = lab::Lab::create("soak");
  ST_TRY(made);
  lab_ = std::move(*made);
  ST_TRY(add_two_pods({.name = "pass", .home_mode = "passthrough", .other_modes = {"disabled"}}));
  ST_TRY(add_two_pods(
      {.name = "mesh", .home_mode = "redirect", .other_modes = {"disabled", "passthrough"}}));
  for (const Habit habit : {Habit::kAsks, Habit::kSplices, Habit::kMptcp}) {
    if (habit == Habit::kMptcp && !mptcp_is_safe()) {
      fmt::print("soak: no MPTCP, which this kernel's sockmap may not survive\n");
      continue;
    }
    ST_TRY(add_two_pods({.name = std::string(kHabitNames.at(static_cast<std::size_t>(habit))),
                         .home_mode = "passthrough",
                         .other_modes = {"disabled"},
                         .habit = habit,
                         .connections = 4}));
  }
  auto pod = lab_->add_pod("loop");
  ST_TRY(pod);
  return add_world(
      {.name = "loop",
       .home_mode = "passthrough",
       .other_modes = {"disabled", "redirect"},
       .targets = {target("127.0.0.1", 9000), target((*pod)->v4, 9001), target("::1", 9000)}},
      **pod, **pod);
}

Result<void> Soak::add_two_pods(World world) {
  auto client = lab_->add_pod(world.name + "-c");
  auto server = lab_->add_pod(world.name + "-s");
  if (!client || !server) {
    return (client ? server : client).error();
  }
  const std::string service = fmt::format("10.96.0.{}", 10 + worlds_.size());
  ST_TRY(lab_->add_service_address(service, **server));
  world.targets = {target((*server)->v4, 9000), target((*server)->v6, 9001), target(service, 9000),
                   target((*server)->v4, kControlPort)};
  return add_world(std::move(world), **client, **server);
}

Result<void> Soak::add_world(World world, const lab::Pod& client, const lab::Pod& server) {
  ST_TRY(go_home(world));
  for (const lab::Pod* pod : {&client, &server}) {
    ST_TRY(objects_->put(lab::PodSpec{.namespace_name = world.name,
                                      .name = pod->name,
                                      .netns_path = pod->netns.path(),
                                      .addresses = {pod->v4, pod->v6}}));
  }
  world.client_place = client.netns.path();
  world.server_place = server.netns.path();
  world.pods = {world.name + "/" + client.name, world.name + "/" + server.name};
  worlds_.push_back(std::move(world));
  make_actors(worlds_.back());
  return {};
}

Result<void> Soak::go_home(const World& world) {
  return objects_->put(lab::NamespaceSpec{
      .name = world.name,
      .labels = {{"sidetrack.io/mode", world.home_mode}},
      .annotations = {{"sidetrack.io/exclude-outbound-ports", std::to_string(kControlPort)}}});
}

void Soak::make_actors(World& world) {
  const auto spec = [this, seed = random_(), habit = world.habit](
                        const std::string& role, const std::string& place,
                        const std::vector<std::string>& words) {
    return [=, this](std::uint64_t starts) {
      lab::ProcessSpec made{
          .arguments = {lab::lab_program("st_soak_peer"), role,
                        std::string(kHabitNames.at(static_cast<std::size_t>(habit))),
                        std::to_string(starts == 0 && habit == Habit::kAsks ? kAsksLateMs : 0),
                        std::to_string(seed + starts)},
          .netns_path = place,
          .cgroup_path = cgroup_->path()};
      made.arguments.insert(made.arguments.end(), words.begin(), words.end());
      return made;
    };
  };
  std::vector<std::string> words{std::to_string(world.connections)};
  words.insert(words.end(), world.targets.begin(), world.targets.end());
  world.client =
      std::make_unique<Actor>(world.name + " client", spec("client", world.client_place, words));
  world.server = std::make_unique<Actor>(
      world.name + " server",
      spec("server", world.server_place, {"9000", "9001", std::to_string(kControlPort)}));
}

Result<void> Soak::start_all() {
  auto made = lab::Sidetrack::create(
      *cgroup_, {.objects_folder = objects_->folder().string(),
                 .netns_path = lab_->node().path(),
                 .fast_path = true,
                 .agent_arguments = {"--fast-path-probation", "0s", "--fast-path-round-trips", "4",
                                     "--fast-path-loopback", "on"}});
  ST_TRY(made);
  sidetrack_ = std::move(*made);
  agent_ = std::make_unique<Actor>("agent", [this](auto) { return sidetrack_->agent_spec(); });
  engine_ = std::make_unique<Actor>("engine", [this](auto) { return sidetrack_->engine_spec(); });
  ST_TRY(agent_->start());
  ST_TRY(engine_->start());
  ST_TRY(wait_until_up());
  for (const World& world : worlds_) {
    for (const std::string& pod : world.pods) {
      ST_TRY(sidetrack_->wait_for_pod(pod, "enrolled", world.home_mode));
    }
  }
  maps_before_ = map_entries();
  held_idle_ = {{"agent", held_by(*agent_)}, {"engine", held_by(*engine_)}};
  for (const World& world : worlds_) {
    ST_TRY(world.server->start());
    ST_TRY(world.server->process().wait_for_output("ready"));
  }
  for (const World& world : worlds_) {
    ST_TRY(world.client->start());
  }
  return {};
}

Result<void> Soak::wait_until_up() {
  const bool is_up = eventually(3 * kPatience, [&] {
    const auto status = sidetrack_->get("/v1/status");
    return status && (*status)["fast_path"] == "on" &&
           status->value("/engines/0/state"_json_pointer, "") == "up";
  });
  return is_up ? Result<void>()
               : make_error(ErrorCode::kBusy, "agent and engine did not come up; " + logs());
}

Result<void> Soak::wind_down() {
  for (const World& world : worlds_) {
    if (world.client->is_up()) {
      ST_TRY(world.client->process().signal(SIGTERM));
    }
  }
  for (const World& world : worlds_) {
    if (!world.client->is_up()) {
      continue;
    }
    const auto status = world.client->process().wait(scaled(milliseconds(20'000)));
    if (!status || *status != 0) {
      judge_.add_finding(world.client->name() + " could not finish its connections");
    }
  }
  count_fast_messages();
  for (const World& world : worlds_) {
    world.client->kill();
    world.server->kill();
  }
  take_lines();
  judge_.look(~std::uint64_t{0} >> 1U);
  check_growth();
  check_shares();
  return {};
}

std::string Soak::logs() const {
  std::string text;
  for (const auto& actor : {agent_.get(), engine_.get()}) {
    if (actor != nullptr) {
      text += actor->name() + ":\n" + actor->said();
    }
  }
  return text;
}

}  // namespace sidetrack::soak
