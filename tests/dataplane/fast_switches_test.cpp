// SPDX-License-Identifier: Apache-2.0
// The switches of the fast path, each turned while connections are open and streams go on: what may
// skip TCP changes, no byte is lost.
#include <sys/socket.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/shared_fast_node.h"
#include "tests/dataplane/talker.h"

namespace sidetrack::lab {
namespace {

constexpr const char* kFastPath = "sidetrack.io/fast-path";
constexpr std::uint64_t kSome = 2'000'000;

class FastSwitches : public SharedFastNode {
 protected:
  [[nodiscard]] std::uint64_t messages() const {
    return KernelView(sidetrack_->pin_dir()).fast_counts().value().messages;
  }
  // Both receive more, and whether messages skipped TCP meanwhile.
  [[nodiscard]] bool skip_tcp(const Talker& client, const Talker& server) const {
    const std::uint64_t before = messages();
    EXPECT_TRUE(both_receive(client, server, kSome)) << sidetrack_->logs();
    return messages() != before;
  }
  void expect_kernel_has(const Pod& pod, st_fast_path value) const {
    const auto cookie = pod.netns.cookie().value();
    EXPECT_TRUE(eventually(kPatience, [&] {
      const auto row = KernelView(sidetrack_->pin_dir()).pod(cookie);
      return row && row->fast_path == value;
    })) << pod.name;
  }
  [[nodiscard]] std::string reason_of(const std::string& pod) const {
    const auto shown = sidetrack_->pod(pod);
    return shown ? shown->value("fast_path_reason", "") : shown.error().message;
  }
  [[nodiscard]] std::string status(const std::string& field) const {
    const auto shown = sidetrack_->get("/v1/status");
    return shown ? shown->value(field, "") : shown.error().message;
  }
  // Another agent, with these options in place of --fast-path.
  void start_agent_with(const std::vector<std::string>& options) {
    ST_ASSERT_OK(sidetrack_->agent().terminate());
    ProcessSpec spec = sidetrack_->agent_spec();
    auto& words = spec.arguments;
    const auto old = std::find(words.begin(), words.end(), "--fast-path");
    ASSERT_TRUE(old != words.end() && *std::next(old) == "auto");
    words.insert(words.erase(old, old + 2), options.begin(), options.end());
    ST_ASSERT_VALUE(agent_, Process::start(spec));
    ASSERT_TRUE(eventually(3 * kPatience, [&] {
      return sidetrack_->get("/v1/status").has_value();
    })) << agent_->output();
    ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/client", "enrolled", "passthrough"));
  }

  std::unique_ptr<Process> agent_;
};

TEST_F(FastSwitches, pods_of_two_namespaces_skip_tcp_only_while_both_say_node) {
  ST_ASSERT_OK(objects_->put(
      NamespaceSpec{.name = "depot", .labels = {{"sidetrack.io/mode", "passthrough"}}}));
  World depot;
  ASSERT_NO_FATAL_FAILURE(make_world(depot, "depot"));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("depot/server", "enrolled", "passthrough"));
  Ends ends = join(*shop_.client_shell, *depot.server_shell,
                   {.listen_on = "0.0.0.0", .address = depot.server->v4});
  Talker client(ends.client.get(), 1, 2);
  Talker server(ends.server.get(), 2, 1);
  // Whoever is adopted now was let in by the policy of now: a control, made anew.
  const auto expect_way = [&](bool fast) {
    if (fast) {
      EXPECT_TRUE(eventually(kPatience, [&] { return skip_tcp(client, server); }))
          << reason_of("depot/server") << sidetrack_->logs();
      return;
    }
    EXPECT_TRUE(eventually(kPatience, [&] { return !skip_tcp(client, server); }));
    { const Ends control = open_fast(); }
    EXPECT_FALSE(skip_tcp(client, server));
    EXPECT_EQ(reason_of("depot/server"), "fp_other_namespace");
  };
  expect_way(false);  // auto and auto
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", kFastPath, "node"));
  expect_kernel_has(*shop_.client, ST_FAST_PATH_NODE);
  expect_way(false);
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "depot", kFastPath, "node"));
  expect_way(true);
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", kFastPath, std::nullopt));
  expect_kernel_has(*shop_.client, ST_FAST_PATH_AUTO);
  expect_way(false);  // auto and node
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/client", kFastPath, "node"));
  expect_way(true);
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/client", kFastPath, std::nullopt));
  client.finish();
  server.finish();
  expect_all_arrived(client, server);
}

TEST_F(FastSwitches, a_pods_label_flips_during_a_stream) {
  Ends ends = open_fast();
  Talker client(ends.client.get(), 3, 4);
  Talker server(ends.server.get(), 4, 3);
  for (int round = 0; round < 3; ++round) {
    for (const char* pod : {"shop/server", "shop/client"}) {
      ST_ASSERT_OK(objects_->set_label(Kind::kPod, pod, kFastPath, "off"));
      EXPECT_TRUE(eventually(kPatience, [&] { return !skip_tcp(client, server); })) << pod;
      EXPECT_FALSE(skip_tcp(client, server)) << pod;
      wait_until_adopted(0);
      ST_ASSERT_OK(objects_->set_label(Kind::kPod, pod, kFastPath, std::nullopt));
      EXPECT_TRUE(eventually(kPatience, [&] { return skip_tcp(client, server); })) << pod;
    }
  }
  client.finish();
  server.finish();
  expect_all_arrived(client, server);
}

// The node's switch.
TEST_F(FastSwitches, an_agent_that_starts_with_the_fast_path_off_takes_all_out) {
  spoil();
  Ends streaming = open(true);
  Ends idle = open(true, Route::kLoopback);
  Ends waiting = open(true, Route::kV6);
  make_fast({&streaming, &idle, &waiting});
  const auto is_in = [this](const UniqueFd& fd) { return adopted(fd).has_value(); };
  EXPECT_TRUE(is_in(streaming.client) && is_in(idle.client) && is_in(waiting.server));
  const std::uint64_t by_tcp = sent_by_tcp(waiting.client);
  EXPECT_EQ(send_text(waiting.client, "waits"), "sent");
  EXPECT_EQ(sent_by_tcp(waiting.client), by_tcp);
  Talker client(streaming.client.get(), 5, 6);
  Talker server(streaming.server.get(), 6, 5);

  std::ofstream(sidetrack_->cache_dir() + "/fast-path-workloads.json")
      << R"({"shop/ReplicaSet/kept": "fp_splice"})";
  ASSERT_NO_FATAL_FAILURE(start_agent_with({"--fast-path", "off"}));
  ST_ASSERT_VALUE(const auto workloads, sidetrack_->get("/v1/workloads"));
  EXPECT_EQ(workloads["workloads"].dump(),
            R"([{"reason":"fp_splice","workload":"shop/ReplicaSet/kept"}])");
  const auto are_in = [&] {
    return std::string(is_in(streaming.client) ? "c" : "") + (is_in(streaming.server) ? "s" : "") +
           (is_in(idle.client) || is_in(idle.server) ? " idle" : "");
  };
  EXPECT_TRUE(eventually(kPatience, [&] { return are_in().empty(); }))
      << are_in() << sidetrack_->logs();
  EXPECT_FALSE(skip_tcp(client, server));
  EXPECT_TRUE(is_in(waiting.server)) << "bytes that skipped TCP wait in it";
  EXPECT_EQ(receive_text(waiting.server, 9), "'waits'");
  EXPECT_TRUE(eventually(kPatience, [&] { return !is_in(waiting.server); })) << sidetrack_->logs();
  const auto status = sidetrack_->get("/v1/status");
  EXPECT_TRUE(status && (*status)["fast_path"] == "off" && (*status)["fast_path_connections"] == 0)
      << (status ? status->dump() : status.error().message);
  for (const Ends* ends : {&idle, &waiting}) {
    EXPECT_FALSE(skips_tcp(ends->client, ends->server));
    EXPECT_FALSE(skips_tcp(ends->server, ends->client));
  }
  client.finish();
  server.finish();
  expect_all_arrived(client, server);
}

// The same while the agent runs, and back.
TEST_F(FastSwitches, the_nodes_switch_is_read_again_at_sighup) {
  spoil();
  ST_ASSERT_VALUE(const TempDir folder, TempDir::create("config"));
  const std::string file = folder.file("agent.conf");
  const auto flip = [&](const std::string& value) {
    ST_ASSERT_OK(write_atomically(file, "fast-path = " + value + "\n"));
    ST_ASSERT_OK(agent_->signal(SIGHUP));
  };
  ST_ASSERT_OK(write_atomically(file, "fast-path = off\n"));
  ASSERT_NO_FATAL_FAILURE(start_agent_with({"--config", file}));
  Ends streaming = open(true);
  Ends idle = open(true, Route::kV6);
  Talker client(streaming.client.get(), 7, 8);
  Talker server(streaming.server.get(), 8, 7);
  EXPECT_FALSE(skip_tcp(client, server));
  EXPECT_EQ(status("fast_path_reason"), "node_off");

  // What began while it was off is not noted, and stays on TCP.
  ASSERT_NO_FATAL_FAILURE(flip("auto"));
  ASSERT_TRUE(eventually(3 * kPatience, [&] { return status("fast_path") == "on"; }))
      << agent_->output();
  Ends young = open(true);
  make_fast({&young});
  EXPECT_FALSE(skips_tcp(idle.client, idle.server));
  Talker young_client(young.client.get(), 9, 10);
  Talker young_server(young.server.get(), 10, 9);
  for (int round = 0; round < 2; ++round) {
    ASSERT_NO_FATAL_FAILURE(flip("off"));
    EXPECT_TRUE(eventually(kPatience, [&] { return !skip_tcp(young_client, young_server); }));
    EXPECT_FALSE(skip_tcp(young_client, young_server));
    wait_until_adopted(0);
    EXPECT_EQ(status("fast_path_reason"), "node_off");
    EXPECT_TRUE(eventually(2 * kPatience, [&] { return !is_watched(); })) << "nobody needs it";
    ASSERT_NO_FATAL_FAILURE(flip("auto"));
    EXPECT_TRUE(eventually(kPatience, [&] { return skip_tcp(young_client, young_server); }))
        << agent_->output();
    EXPECT_EQ(status("fast_path"), "on");
  }
  for (Talker* talker : {&client, &server, &young_client, &young_server}) {
    talker->finish();
  }
  expect_all_arrived(client, server);
  expect_all_arrived(young_client, young_server);
}

}  // namespace
}  // namespace sidetrack::lab
