// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/fast_pair.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iostream>

#include <nlohmann/json.hpp>

namespace sidetrack::lab {
namespace {

using nlohmann::json;

constexpr milliseconds kLookEvery{100};

std::string cut(const std::string& text) {
  return text.size() <= 3000 ? text
                             : text.substr(0, 3000) + fmt::format("... ({} bytes)", text.size());
}

}  // namespace

void FastPair::set_up_node() {
  ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("fastpair"));
  cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
  ST_ASSERT_VALUE(auto objects_folder, TempDir::create("objects"));
  objects_folder_ = std::make_unique<TempDir>(std::move(objects_folder));
  objects_ = std::make_unique<Objects>(objects_folder_->path());
  ST_ASSERT_VALUE(lab_, Lab::create("fastpair"));
  ST_ASSERT_VALUE(sidetrack_, Sidetrack::create(
                                  *cgroup_, {.objects_folder = objects_->folder().string(),
                                             .engine = "none",
                                             .netns_path = lab_->node().path(),
                                             .fast_path = true,
                                             .agent_arguments = {"--fast-path-probation", "0s",
                                                                 "--fast-path-round-trips", "1"}}));
  ST_ASSERT_OK(sidetrack_->start_agent());
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

World FastPair::make_world(bool fast) {
  World world{.name = fmt::format("{}-{}", fast ? "fast" : "plain", ++worlds_)};
  const auto fill = [&] {
    ST_ASSERT_OK(objects_->put(
        NamespaceSpec{.name = world.name,
                      .labels = {{"sidetrack.io/mode", "passthrough"},
                                 {"sidetrack.io/fast-path", fast ? "auto" : "off"}}}));
    for (auto [pod, name] :
         {std::pair{&world.client, "client"}, {&world.relay, "relay"}, {&world.server, "server"}}) {
      ST_ASSERT_VALUE(*pod, lab_->add_pod(fmt::format("{}{}", name, worlds_)));
      ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = world.name,
                                         .name = (*pod)->name,
                                         .netns_path = (*pod)->netns.path(),
                                         .addresses = {(*pod)->v4, (*pod)->v6}}));
    }
    for (const Pod* pod : {world.client, world.relay, world.server}) {
      ST_ASSERT_OK(
          sidetrack_->wait_for_pod(world.name + "/" + pod->name, "enrolled", "passthrough"));
    }
  };
  fill();
  return world;
}

void FastPair::watch(const World& world, FastRun& run) const {
  const auto answer = sidetrack_->get("/v1/pods?namespace=" + world.name);
  if (!answer) {
    ADD_FAILURE() << answer.error().message;
    return;
  }
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

std::uint64_t FastPair::fast_bytes(const World& world) {
  const auto answer = sidetrack_->get("/v1/counters");
  if (!answer) {
    ADD_FAILURE() << answer.error().message;
    return 0;
  }
  for (const json& row : (*answer)["counters"]) {
    if (row["namespace"] == world.name) {
      return row["bytes_out"].value("fast", std::uint64_t{0}) +
             row["bytes_in"].value("fast", std::uint64_t{0});
    }
  }
  return 0;
}

FastRun FastPair::run_in(World& world, const Serve& serve, const Command& client) {
  FastRun run{.reasons = " "};
  serve(world);
  if (HasFatalFailure()) {
    return run;
  }
  auto process = Process::start({.arguments = client(world),
                                 .netns_path = world.client->netns.path(),
                                 .cgroup_path = cgroup_->path()});
  if (!process) {
    ADD_FAILURE() << process.error().message;
    return run;
  }
  (*process)->close_input();
  const Clock::time_point deadline = Clock::now() + kProgramPatience;
  do {
    watch(world, run);
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
  watch(world, run);
  world.servers.clear();  // closes what is still open, which is then counted
  return run;
}

FastRun FastPair::run_both(const Serve& serve, const Command& client) {
  World plain = make_world(false);
  World fast = make_world(true);
  if (HasFatalFailure()) {
    return {};
  }
  const FastRun control = run_in(plain, serve, client);
  FastRun run = run_in(fast, serve, client);
  if (run.client_adopted + run.relay_adopted + run.server_adopted != 0) {
    (void)eventually(kPatience, [&] { return (run.fast_bytes = fast_bytes(fast)) != 0; });
  }
  EXPECT_EQ(control.exit_status, 0) << cut(control.output);
  EXPECT_EQ(run.exit_status, 0) << cut(run.output) << cut(sidetrack_->logs());
  EXPECT_FALSE(control.standard_output.empty());
  EXPECT_TRUE(control.standard_output == run.standard_output) << "off:\n"
                                                              << cut(control.output) << "\non:\n"
                                                              << cut(run.output);
  EXPECT_EQ(control.client_adopted + control.relay_adopted + control.server_adopted, 0U);
  EXPECT_EQ(fast_bytes(plain), 0U);
  const std::string seen = fmt::format(
      "pairs adopted at once: client {}, relay {}, server {}; {} bytes skipped TCP; reasons:{}",
      run.client_adopted, run.relay_adopted, run.server_adopted, run.fast_bytes, run.reasons);
  std::cout << "[ FASTPATH ] " << seen << "\n";
  RecordProperty("fast_path", seen);
  return run;
}

void FastPair::expect_adopted(const Serve& serve, const Command& client) {
  const FastRun run = run_both(serve, client);
  EXPECT_GT(run.client_adopted, 0U) << "reasons:" << run.reasons;
  EXPECT_GT(run.fast_bytes, 0U) << "reasons:" << run.reasons;
}

void FastPair::expect_refused(const Serve& serve, const Command& client,
                              const std::string& reason) {
  const FastRun run = run_both(serve, client);
  EXPECT_NE(run.reasons.find(" " + reason + " "), std::string::npos) << "reasons:" << run.reasons;
  EXPECT_EQ(run.fast_bytes, 0U);
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

std::string FastPair::program_file(const std::string& name) {
  return std::string(ST_PROGRAMS_DIR) + "/" + name;
}

std::string FastPair::write_file(const std::string& name, const std::string& text) const {
  const std::string path = folder_->file(name);
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

bool FastPair::installed(const std::string& program) {
  const auto found = run_command({.arguments = {"sh", "-c", "command -v " + program}});
  return found && found->exit_status == 0;
}

}  // namespace sidetrack::lab
