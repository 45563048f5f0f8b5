// SPDX-License-Identifier: Apache-2.0
// What applications notice when the engine dies, hangs or is replaced.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fault_node.h"
#include "tests/lab/http_get.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint64_t kConnects = 10'000;
constexpr std::uint64_t kRounds = 20;
constexpr std::uint64_t kLeastKills = 5;
constexpr std::uint64_t kRequestsPerKill = 200;
constexpr int kThreads = 2;
constexpr const char* kService = "10.96.0.10";

class EngineFault : public FaultNode {
 protected:
  [[nodiscard]] bool has_no_port() const {
    const st_pod pod = row();
    const auto is_zero = [](std::uint16_t port) { return port == 0; };
    return std::all_of(std::begin(pod.port_v4_be), std::end(pod.port_v4_be), is_zero) &&
           std::all_of(std::begin(pod.port_v6_be), std::end(pod.port_v6_be), is_zero);
  }
  // Connections to the agent's socket for engines that it has not accepted yet.
  [[nodiscard]] std::uint64_t waiting_engines() const {
    const auto listed =
        run_command({.arguments = {"ss", "-Hxl", "src", sidetrack_->state_dir() + "/engine.sock"},
                     .netns_path = lab_->node().path()});
    std::istringstream words(listed ? listed->output : "");
    std::string type, state;
    std::uint64_t waiting = 0;
    words >> type >> state >> waiting;
    return waiting;
  }
  // Kills and starts engines until `traffic` has done its rounds; how many were killed.
  void kill_under(const Traffic& traffic, std::uint64_t* kills) {
    const Counts before = counted();
    while (traffic.rounds() < kRounds || *kills < kLeastKills) {
      sidetrack_->engine().kill_hard();
      const std::uint64_t redirected = since(before)["redirected"];
      ++*kills;
      ST_ASSERT_OK(sidetrack_->start_engine());
      ASSERT_TRUE(eventually(kPatience, [&] {
        return since(before)["redirected"] > redirected + kRequestsPerKill;
      })) << sidetrack_->logs();
    }
  }
  // A kill costs at most what was inside of the engine: one connection per thread, which is reset.
  static std::uint64_t cut_by(const BurstResult& burst, std::uint64_t kills) {
    std::uint64_t cut = 0;
    for (const auto& [name, count] : burst.io_errors) {
      EXPECT_TRUE(name == "ECONNRESET" || name == "EPIPE") << name;
      cut += count;
    }
    EXPECT_LE(cut, kills * kThreads);
    EXPECT_EQ(burst.mismatches, 0U);
    return cut;
  }
  // Connections of web to `address` that the connect hook refused, as flows show them.
  void expect_refused_flows(const std::string& address, std::uint64_t count) {
    const bool is_v6 = address.find(':') != std::string::npos;
    const std::string to = (is_v6 ? "[" + address + "]" : address) + ":" + std::to_string(kEcho);
    ST_ASSERT_VALUE(const auto page, sidetrack_->get("/v1/flows?namespace=shop"));
    std::uint64_t found = 0;
    for (const auto& flow : page["flows"]) {
      if (flow["destination"] != to || flow["verdict"] != "refused") {
        continue;
      }
      ++found;
      EXPECT_EQ(flow["pod"], "web") << flow;
      EXPECT_EQ(flow["reason"], "engine_down_closed") << flow;
      EXPECT_EQ(flow["close"], "refused") << flow;
      EXPECT_EQ(flow["path"], "") << flow;
      EXPECT_EQ(flow["endpoint"], "") << flow;
      EXPECT_EQ(flow["source"], "") << flow;
      EXPECT_GT(flow["start"], 0) << flow;
      EXPECT_EQ(flow["end"], flow["start"]) << flow;
    }
    EXPECT_EQ(found, count) << page.dump(2);
  }
  // Traffic to the echo server by IPv4, by IPv6 and by a Service, whose endpoint the engine picks;
  // without an engine the node's route leads there.
  void start_with_service() {
    start_echo();
    ST_ASSERT_OK(lab_->add_service_address(kService, *api_));
    ST_ASSERT_OK(objects_->put(ServiceSpec{.namespace_name = "shop",
                                           .name = "api",
                                           .cluster_addresses = {kService},
                                           .port = kEcho,
                                           .target_port = kEcho,
                                           .backends = {{.addresses = {api_v4_}}}}));
    ASSERT_NO_FATAL_FAILURE(start_sidetrack());
    const std::string service = fmt::format("{}:{}", kService, kEcho);
    ASSERT_TRUE(eventually(kPatience, [&] {
      const auto view =
          sidetrack_->get("/v1/explain?namespace=shop&pod=web&destination=" + service);
      return view && view->value("endpoints", nlohmann::json::array()).size() == 1;
    })) << sidetrack_->logs();
    const Counts before = counted();
    for (const Target& target : targets()) {
      ST_ASSERT_VALUE(const auto burst, shell_->burst(target.address, target.port, {.count = 5}));
      expect_clean(burst, 5, sidetrack_->logs());
    }
    EXPECT_EQ(since(before), (Counts{{"redirected", 15}}));
  }
  [[nodiscard]] std::vector<Target> targets() const {
    return {{api_v4_, kEcho}, {api_->v6, kEcho}, {kService, kEcho}};
  }
  // Stops the engine and connects until the kernel no longer trusts its heartbeat, which is old
  // after a second. That connect ends with `error` and is counted under `reason`.
  void stop_engine_until(const std::string& reason, const std::string& error) {
    constexpr milliseconds kSoonest{500};
    const milliseconds latest = scaled(milliseconds(1600));
    const Counts before = counted();
    std::string last;
    const auto stopped = Clock::now();
    ST_ASSERT_OK(sidetrack_->engine().signal(SIGSTOP));
    ASSERT_TRUE(eventually(kPatience, [&] {
      const auto socket = shell_->connect(api_v4_, kEcho);
      last = socket ? socket->errno_name : socket.error().message;
      return !socket || !shell_->close(socket->id) || since(before).contains(reason);
    }));
    const auto passed = std::chrono::duration_cast<milliseconds>(Clock::now() - stopped);
    EXPECT_EQ(last, error);
    EXPECT_EQ(since(before)[reason], 1U);
    EXPECT_EQ(since(before).size(), 2U) << "and redirected before";
    EXPECT_GE(passed, kSoonest);
    EXPECT_LE(passed, latest);
  }
  // A connection of `shell` to the echo server.
  int open_stream(PodShell& shell) {
    const auto socket = shell.connect(api_v4_, kEcho);
    EXPECT_TRUE(socket.has_value() && socket->error_number == 0) << sidetrack_->logs();
    return socket ? socket->id : 0;
  }
};

TEST_F(EngineFault, a_kill_fails_no_connect_and_cuts_only_what_was_inside) {
  ASSERT_NO_FATAL_FAILURE(start_with_service());
  const Counts before = counted();
  Traffic traffic(shell_in(*web_), targets(), {.count = kConnects / kRounds, .threads = kThreads});
  std::uint64_t kills = 0;
  ASSERT_NO_FATAL_FAILURE(kill_under(traffic, &kills));
  const BurstResult burst = traffic.stop();
  EXPECT_EQ(burst.connect_errors, Counts());
  EXPECT_EQ(burst.ok + cut_by(burst, kills), traffic.rounds() * (kConnects / kRounds));
  EXPECT_GT(since(before)["redirected"], 0U);
  EXPECT_GT(since(before)["engine_down"], 0U);
}

TEST_F(EngineFault, a_kill_refuses_connects_in_no_other_way_if_the_pod_says_closed) {
  constexpr milliseconds kNoHang{3000};  // of the burst's 10 s
  put_web("web", {{"sidetrack.io/on-engine-loss", "closed"}});
  ASSERT_NO_FATAL_FAILURE(start_with_service());
  const Counts before = counted();
  Traffic traffic(shell_in(*web_), targets(), {.count = kConnects / kRounds, .threads = kThreads});
  std::uint64_t kills = 0;
  ASSERT_NO_FATAL_FAILURE(kill_under(traffic, &kills));
  const BurstResult burst = traffic.stop();
  Counts counts = since(before);
  const std::uint64_t by_verdict = counts["engine_down_closed"];
  const auto errors = burst.connect_errors.find("ECONNREFUSED");
  const std::uint64_t refused = errors == burst.connect_errors.end() ? 0 : errors->second;
  EXPECT_EQ(burst.connect_errors, (Counts{{"ECONNREFUSED", refused}}));
  EXPECT_GT(by_verdict, 0U);
  // A listener that closes between the verdict and the SYN refuses by itself.
  EXPECT_GE(refused, by_verdict);
  EXPECT_LE(refused, by_verdict + kills * kThreads);
  const std::uint64_t all = traffic.rounds() * (kConnects / kRounds);
  EXPECT_EQ(burst.ok + refused + cut_by(burst, kills), all);
  EXPECT_EQ(counts["redirected"] + by_verdict, all);
  EXPECT_EQ(counts.size(), 2U) << "something went direct";
  EXPECT_LT(std::chrono::microseconds(burst.max_us), scaled(kNoHang));
}

TEST_F(EngineFault, after_a_kill_no_connect_fails) {
  constexpr int kKills = 8;
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  for (int i = 0; i < kKills; ++i) {
    sidetrack_->engine().kill_hard();
    expect_connections(100, "engine_down");
    ST_ASSERT_OK(sidetrack_->start_engine());
    ASSERT_TRUE(eventually_explains("redirected")) << sidetrack_->logs();
    expect_connections(100, "redirected");
    ASSERT_FALSE(HasFailure());
  }
}

TEST_F(EngineFault, refuses_while_the_engine_is_dead_or_stopped_if_the_pod_says_closed) {
  start_echo();
  put_web("web", {{"sidetrack.io/on-engine-loss", "closed"}});
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  expect_connections(5, "redirected");
  sidetrack_->engine().kill_hard();
  for (const char* address : {"v4", "v6"}) {
    const Counts before = counted();
    const std::string to = std::string(address) == "v4" ? api_->v4 : api_->v6;
    ST_ASSERT_VALUE(const auto burst, shell_->burst(to, kEcho, {.count = 10}));
    EXPECT_EQ(burst.connect_errors, (Counts{{"ECONNREFUSED", 10}})) << address;
    EXPECT_EQ(since(before), (Counts{{"engine_down_closed", 10}})) << address;
    expect_refused_flows(to, 10);
  }
  ST_ASSERT_OK(sidetrack_->start_engine());
  ASSERT_TRUE(eventually_explains("redirected")) << sidetrack_->logs();
  expect_connections(5, "redirected");
  ASSERT_NO_FATAL_FAILURE(stop_engine_until("engine_down_closed", "ECONNREFUSED"));
  EXPECT_EQ(explain(), "engine_down_closed");
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGCONT));
  ASSERT_TRUE(eventually_explains("redirected")) << sidetrack_->logs();
  expect_connections(5, "redirected");
}

TEST_F(EngineFault, the_kernel_takes_a_dead_engines_ports_away_without_the_agent) {
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  expect_connections(5, "redirected");
  ASSERT_FALSE(has_no_port());
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGSTOP));
  sidetrack_->engine().kill_hard();
  EXPECT_TRUE(has_no_port());
  expect_connections(20, "engine_down");
  EXPECT_TRUE(has_no_port());
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGCONT));
}

// Its message waits in the socket, behind those of two that have ended meanwhile.
TEST_F(EngineFault, that_starts_while_the_agent_is_stopped_is_taken_in_when_it_goes_on) {
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGSTOP));
  sidetrack_->engine().kill_hard();
  std::unique_ptr<Process> engine;
  for (std::uint64_t number = 1; number <= 3; ++number) {
    if (engine) {
      engine->kill_hard();
    }
    ST_ASSERT_VALUE(engine, Process::start(sidetrack_->engine_spec()));
    ASSERT_TRUE(eventually(kPatience, [&] { return waiting_engines() == number; }))
        << engine->output();
    expect_connections(5, "engine_down");
  }
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGCONT));
  ASSERT_TRUE(eventually_explains("redirected")) << sidetrack_->logs();
  expect_connections(20, "redirected");
  EXPECT_FALSE(has_no_port());
  ST_ASSERT_VALUE(const auto status, sidetrack_->get("/v1/status"));
  EXPECT_EQ(status["engine"]["pid"], engine->pid());
  EXPECT_EQ(status["engines"].size(), 1U) << status["engines"];
  EXPECT_TRUE(status["problems"].empty()) << status["problems"];
}

TEST_F(EngineFault, connections_go_direct_while_the_engine_is_stopped) {
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  expect_connections(20, "redirected");
  ASSERT_NO_FATAL_FAILURE(stop_engine_until("engine_down", ""));
  EXPECT_EQ(explain(), "engine_down");
  expect_connections(50, "engine_down");
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGCONT));
  ASSERT_TRUE(eventually_explains("redirected")) << sidetrack_->logs();
  expect_connections(50, "redirected");
}

TEST_F(EngineFault, a_stopped_engine_stalls_what_it_has_and_serves_it_when_it_goes_on) {
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  const int stalled = open_stream(*shell_);
  expect_alive(*shell_, stalled);
  const Counts before = counted();
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGSTOP));
  const int id = open_stream(*shell_);  // its heartbeat is still good
  EXPECT_EQ(since(before).count("engine_full"), 0U);
  for (const int waiting : {stalled, id}) {
    ST_ASSERT_OK(shell_->send(waiting, "x"));
    ST_ASSERT_VALUE(const auto nothing,
                    shell_->command(fmt::format("recv {} 1 timeout_ms=200", waiting)));
    EXPECT_EQ(nothing.value("errno_name", ""), "EAGAIN");
  }
  ASSERT_TRUE(eventually_explains("engine_down"));
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGCONT));
  for (const int waiting : {stalled, id}) {
    ST_ASSERT_VALUE(const auto served, shell_->command(fmt::format("recv {} 1 timeout_ms={}",
                                                                   waiting, kPatience.count())));
    EXPECT_EQ(served.value("hex", ""), "78");
    expect_alive(*shell_, waiting);
  }
}

TEST_F(EngineFault, that_asks_another_folder_than_its_agents_is_a_problem) {
  constexpr milliseconds kToldAfter{30'000};
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  ProcessSpec spec = sidetrack_->agent_spec();
  const auto folder =
      std::find(spec.arguments.begin(), spec.arguments.end(), sidetrack_->state_dir());
  ASSERT_NE(folder, spec.arguments.end());
  *folder += "-other";
  const std::string other = *folder + "/admin.sock";
  ST_ASSERT_OK(sidetrack_->agent().terminate());
  ST_ASSERT_VALUE(const auto agent, Process::start(spec));
  const auto status = [&] {
    const auto answer = http_over_unix(other, {.target = "/v1/status"});
    return answer ? answer->body : "";
  };
  ASSERT_TRUE(eventually(kPatience, [&] {
    return status().find("it has not registered with this agent yet") != std::string::npos;
  })) << agent->output();
  EXPECT_EQ(status().find("engine_not_registered"), std::string::npos);
  EXPECT_TRUE(eventually(kToldAfter + kPatience, [&] {
    return status().find("engine_not_registered") != std::string::npos;
  })) << status();
}

TEST_F(EngineFault, sighup_cuts_nothing) {
  start_echo();
  start_sidetrack();
  const int stream = open_stream(*shell_);
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGHUP));
  expect_alive(*shell_, stream);
  expect_connections(5, "redirected");
  EXPECT_TRUE(sidetrack_->engine().running()) << sidetrack_->logs();
}

TEST_F(EngineFault, a_new_engine_takes_over_and_cuts_nothing) {
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  const int stream = open_stream(*shell_);
  expect_alive(*shell_, stream);
  const st_pod old_row = row();
  const Counts before = counted();
  Traffic traffic(shell_in(*web_), {{api_v4_, kEcho}}, {.count = 50, .threads = 2});
  ST_ASSERT_OK(sidetrack_->start_engine());
  ASSERT_TRUE(eventually(kPatience, [&] {
    const st_pod now = row();
    return now.engine_slot != old_row.engine_slot && now.port_v4_be[0] != 0;
  })) << sidetrack_->logs();
  ST_ASSERT_OK(sidetrack_->old_engine().signal(SIGTERM));
  ST_ASSERT_OK(sidetrack_->old_engine().wait_for_output("draining"));
  for (const std::uint64_t rounds = traffic.rounds(); traffic.rounds() < rounds + 5;) {
    expect_alive(*shell_, stream, 100'000);
  }
  EXPECT_TRUE(sidetrack_->old_engine().running());
  ST_ASSERT_OK(shell_->close(stream));
  ST_ASSERT_VALUE(const int status, sidetrack_->old_engine().wait());
  EXPECT_EQ(status, 0);
  const BurstResult burst = traffic.stop();
  expect_clean(burst, burst.ok, sidetrack_->logs());
  EXPECT_EQ(since(before), (Counts{{"redirected", burst.ok}}));
  expect_connections(10, "redirected");
}

}  // namespace
}  // namespace sidetrack::lab
