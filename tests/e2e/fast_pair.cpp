// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/fast_pair.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include <nlohmann/json.hpp>

namespace sidetrack::lab {
namespace {

using nlohmann::json;

constexpr milliseconds kLookEvery{100};

std::string cut(const std::string& text) {
  return text.size() <= 3000 ? text
                             : text.substr(0, 3000) + fmt::format("... ({} bytes)", text.size());
}

const char* name_of(Way way) {
  static constexpr std::array kNames = {"off", "direct", "engine"};
  return kNames.at(static_cast<std::size_t>(way));
}

const char* mode_of(Way way) {
  static constexpr std::array kModes = {"disabled", "passthrough", "redirect"};
  return kModes.at(static_cast<std::size_t>(way));
}

}  // namespace

std::vector<std::string> FastPair::agent_arguments() const {
  return {"--fast-path-probation", "0s", "--fast-path-round-trips", "1"};
}

void FastPair::set_up_node() const {
  ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("fastpair"));
  cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
  ST_ASSERT_VALUE(auto objects_folder, TempDir::create("objects"));
  objects_folder_ = std::make_unique<TempDir>(std::move(objects_folder));
  objects_ = std::make_unique<Objects>(objects_folder_->path());
  ST_ASSERT_VALUE(lab_, Lab::create("fastpair"));
  ST_ASSERT_VALUE(sidetrack_,
                  Sidetrack::create(*cgroup_, {.objects_folder = objects_->folder().string(),
                                               .netns_path = lab_->node().path(),
                                               .fast_path = true,
                                               .agent_arguments = agent_arguments()}));
  ST_ASSERT_OK(sidetrack_->start());
  ready_ = true;
}

void FastPair::TearDownTestSuite() {
  sidetrack_.reset();
  lab_.reset();
  objects_.reset();
  objects_folder_.reset();
  cgroup_.reset();
}

void FastPair::SetUp() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  if (!cgroup_) {
    set_up_node();
  }
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_TRUE(ready_) << "the node could not be made";
  const auto status = sidetrack_->get("/v1/status");
  ST_ASSERT_OK(status);
  ASSERT_EQ(status->value("fast_path", ""), "on") << status->dump();
  ST_ASSERT_VALUE(auto folder, TempDir::create("files"));
  folder_ = std::make_unique<TempDir>(std::move(folder));
  // Servers that give up root read it.
  ASSERT_EQ(::chmod(folder_->path().c_str(), 0755), 0);
}

void FastPair::make_world(World& world) {
  world.name = fmt::format("{}-{}", name_of(world.way), ++worlds_);
  ST_ASSERT_OK(objects_->put(NamespaceSpec{
      .name = world.name,
      .labels = {{"sidetrack.io/mode", mode_of(world.way)}, {"sidetrack.io/fast-path", "auto"}}}));
  for (auto [pod, name] :
       {std::pair{&world.client, "client"}, {&world.relay, "relay"}, {&world.server, "server"}}) {
    ST_ASSERT_VALUE(*pod, lab_->add_pod(fmt::format("{}{}", name, worlds_)));
    ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = world.name,
                                       .name = (*pod)->name,
                                       .netns_path = (*pod)->netns.path(),
                                       .addresses = {(*pod)->v4, (*pod)->v6}}));
  }
  const char* state = world.way == Way::kOff ? "skipped" : "enrolled";
  for (const Pod* pod : {world.client, world.relay, world.server}) {
    ST_ASSERT_OK(sidetrack_->wait_for_pod(world.name + "/" + pod->name, state, mode_of(world.way)));
  }
  ASSERT_EQ(::mkdir(folder_of(world).c_str(), 0755), 0);
}

void FastPair::watch(World& world) {
  const auto answer = sidetrack_->get("/v1/pods?namespace=" + world.name);
  if (!answer) {
    ADD_FAILURE() << answer.error().message;
    return;
  }
  FastRun& run = world.run;
  for (const json& pod : (*answer)["pods"]) {
    std::uint64_t& most = pod["pod"] == world.client->name  ? run.client_adopted
                          : pod["pod"] == world.relay->name ? run.relay_adopted
                                                            : run.server_adopted;
    most = std::max(most, pod.value("fast_path_connections", std::uint64_t{0}));
    const std::string reason = pod.value("fast_path_reason", "");
    if (!reason.empty() && run.reasons.find(" " + reason + " ") == std::string::npos) {
      run.reasons += reason + " ";
    }
  }
}

// A connection's bytes are counted when it closes.
void FastPair::count_bytes(World& world) {
  EXPECT_TRUE(eventually(kPatience,
                         [&] {
                           const auto flows = sidetrack_->get("/v1/flows?namespace=" + world.name);
                           return flows && std::ranges::none_of(
                                               (*flows)["flows"],
                                               [](const json& flow) { return flow["end"] == 0; });
                         }))
      << "connections of " << world.name << " do not end";
  const auto answer = sidetrack_->get("/v1/counters");
  if (!answer) {
    ADD_FAILURE() << answer.error().message;
    return;
  }
  for (const json& row : (*answer)["counters"]) {
    if (row["namespace"] == world.name) {
      const auto both = [&](const char* path) {
        return row["bytes_out"].value(path, std::uint64_t{0}) +
               row["bytes_in"].value(path, std::uint64_t{0});
      };
      world.run.fast_bytes = both("fast");
      world.run.handoff_bytes = both("handoff");
    }
  }
}

void FastPair::run_in(World& world, const Serve& serve, const Command& client) {
  FastRun& run = world.run;
  serve(world);
  if (HasFatalFailure()) {
    return;
  }
  auto process = Process::start({.arguments = client(world),
                                 .netns_path = world.client->netns.path(),
                                 .cgroup_path = cgroup_->path()});
  if (!process) {
    ADD_FAILURE() << process.error().message;
    return;
  }
  (*process)->close_input();
  const Clock::time_point deadline = Clock::now() + kProgramPatience;
  do {
    watch(world);
    if (const auto status = (*process)->wait(kLookEvery)) {
      run.exit_status = *status;
      (void)(*process)->wait_for_end_of_output();
      break;
    }
  } while (Clock::now() < deadline);
  run.standard_output = (*process)->standard_output();
  run.output = (*process)->output();
  if (run.exit_status != 0) {
    for (const auto& server : world.servers) {
      run.output += "--- server: " + cut(server->output());
    }
  }
  process->reset();
  watch(world);
  world.servers.clear();  // closes what is still open, which is then counted
}

void FastPair::report(const World& world) {
  const FastRun& run = world.run;
  const std::string seen = fmt::format(
      "{}: pairs adopted at once: client {}, relay {}, server {}; {} bytes skipped TCP, {} the "
      "engine; reasons:{}",
      name_of(world.way), run.client_adopted, run.relay_adopted, run.server_adopted, run.fast_bytes,
      run.handoff_bytes, run.reasons);
  std::cout << "[ FASTPATH ] " << seen << "\n";
  RecordProperty(std::string("fast_path_") + name_of(world.way), seen);
}

std::vector<FastRun> FastPair::run_all(const Serve& serve, const Command& client) {
  std::array<World, 3> worlds = {World{.way = Way::kOff}, World{.way = Way::kDirect},
                                 World{.way = Way::kEngine}};
  for (World& world : worlds) {
    make_world(world);
    if (HasFatalFailure()) {
      return std::vector<FastRun>(2);
    }
  }
  std::vector<std::thread> threads;
  for (World& world : worlds) {
    threads.emplace_back([&] { run_in(world, serve, client); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (World& world : worlds) {
    FastRun& run = world.run;
    count_bytes(world);
    report(world);
    EXPECT_EQ(run.exit_status, 0) << name_of(world.way) << "\n"
                                  << cut(run.output) << cut(sidetrack_->logs());
    EXPECT_TRUE(run.standard_output == worlds[0].run.standard_output)
        << "off:\n"
        << cut(worlds[0].run.output) << "\n"
        << name_of(world.way) << ":\n"
        << cut(run.output);
  }
  const FastRun& control = worlds[0].run;
  EXPECT_FALSE(control.standard_output.empty());
  EXPECT_EQ(control.client_adopted + control.relay_adopted + control.server_adopted, 0U);
  EXPECT_EQ(control.fast_bytes + control.handoff_bytes, 0U);
  return {worlds[1].run, worlds[2].run};
}

std::vector<FastRun> FastPair::expect_adopted(const Serve& serve, const Command& client,
                                              Through through) {
  std::vector<FastRun> runs = run_all(serve, client);
  for (const FastRun& run : runs) {
    EXPECT_GT(run.client_adopted, 0U) << "reasons:" << run.reasons;
    if (through == Through::kRelay) {
      EXPECT_GT(run.relay_adopted, 1U) << "reasons:" << run.reasons;
    }
    EXPECT_GT(run.server_adopted, 0U) << "reasons:" << run.reasons;
  }
  EXPECT_GT(runs[0].fast_bytes, 0U) << "reasons:" << runs[0].reasons;
  EXPECT_GT(runs[1].handoff_bytes, 0U) << "reasons:" << runs[1].reasons;
  return runs;
}

void FastPair::expect_refused(const Serve& serve, const Command& client,
                              std::initializer_list<std::string_view> reasons) {
  const std::vector<FastRun> runs = run_all(serve, client);
  for (const FastRun& run : runs) {
    EXPECT_TRUE(std::ranges::any_of(reasons,
                                    [&](std::string_view reason) {
                                      return run.reasons.find(fmt::format(" {} ", reason)) !=
                                             std::string::npos;
                                    }))
        << "reasons:" << run.reasons;
    EXPECT_EQ(run.handoff_bytes, 0U);
  }
  // To the engine they may skip TCP: what speaks against it is at the other end.
  EXPECT_EQ(runs[0].fast_bytes, 0U);
}

void FastPair::serve(World& world, const Pod& pod, std::vector<std::string> arguments,
                     const std::string& ready) {
  ST_ASSERT_VALUE(auto server, Process::start({.arguments = std::move(arguments),
                                               .netns_path = pod.netns.path(),
                                               .cgroup_path = cgroup_->path()}));
  world.servers.push_back(std::move(server));
  if (!ready.empty()) {
    ST_ASSERT_OK(world.servers.back()->wait_for_output(ready, kProgramPatience));
  }
}

void FastPair::wait_for_listener(const World& world, const Pod& pod, std::uint16_t port) {
  const std::string filter = fmt::format("sport = :{}", port);
  const bool came = eventually(kProgramPatience, [&] {
    const auto sockets =
        run_command({.arguments = {"ss", "-Hltn", filter}, .netns_path = pod.netns.path()});
    return sockets && !sockets->standard_output.empty();
  });
  ASSERT_TRUE(came) << "nothing listens on port " << port << ": "
                    << (world.servers.empty() ? "" : world.servers.back()->output());
}

std::string FastPair::go() {
  return lab_program("st_fast_go");
}

bool FastPair::no_go() {
  return ::access(go().c_str(), X_OK) != 0;
}

std::string FastPair::endpoint(const Pod& pod, Ip ip, std::uint16_t port) {
  const std::string address = host(pod, ip);
  return fmt::format("{}:{}", ip == Ip::kV6 ? "[" + address + "]" : address, port);
}

std::string FastPair::url(const Pod& pod, Ip ip) {
  return "http://" + endpoint(pod, ip, 8080);
}

void FastPair::serve_go(World& world) {
  serve(world, *world.server, {go(), "serve", "8080"}, "ready");
}

std::vector<std::string> FastPair::shell(const std::string& script) {
  return {"bash", "-c", "set -o pipefail; " + script};
}

std::string FastPair::program_file(const std::string& name) {
  return std::string(ST_PROGRAMS_DIR) + "/" + name;
}

std::string FastPair::folder_of(const World& world) const {
  return folder_->file(world.name);
}

std::string FastPair::write_file(const World& world, const std::string& name,
                                 const std::string& text) const {
  const std::string path = folder_of(world) + "/" + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

bool FastPair::installed(const std::string& program) {
  const auto found = run_command({.arguments = {"sh", "-c", "command -v " + program}});
  return found && found->exit_status == 0;
}

}  // namespace sidetrack::lab
