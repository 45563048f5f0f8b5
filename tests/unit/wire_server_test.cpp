// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tests/unit/wire_test_engine.h"

namespace sidetrack::engines {
namespace {

std::vector<std::string> kinds(const ScriptedEngine& engine) {
  std::vector<std::string> out;
  for (const auto& message : engine.received) {
    out.emplace_back(wire::kind_of(message));
  }
  return out;
}

TEST_F(EngineServerTest, welcomes_and_sends_all_that_is_desired) {
  start();
  server->upsert_pod(pod_spec(1, {80, 443}));
  server->upsert_pod(pod_spec(2));
  server->update_routes(services(10, 3));
  ScriptedEngine& engine = connect();
  engine.hello();
  until("both pods listen",
        [&] { return happened("listening 1 1 v4=1 v6=0") && happened("listening 1 2"); });

  EXPECT_EQ(kinds(engine), (std::vector<std::string>{"welcome", "snapshot_begin", "keep", "keep",
                                                     "route", "snapshot_end", "pod", "pod"}));
  EXPECT_TRUE(engine.all<wire::Welcome>()[0] == (wire::Welcome{1, 1, 77, 15900, 15999, 4}));
  EXPECT_EQ(engine.all<wire::Pod>()[0].reserved_ports, (std::vector<std::uint16_t>{80, 443}));
  EXPECT_EQ(engine.all<wire::Pod>()[0].name, "web-1");
  EXPECT_EQ(engine.all<wire::Route>()[0].endpoints.size(), 3U);
  ASSERT_EQ(server->sessions().size(), 1U);
  EXPECT_EQ(server->sessions()[0].slot, 1);
  EXPECT_EQ(server->sessions()[0].pid, ::getpid());
  EXPECT_EQ(server->sessions()[0].version, "test");
  ASSERT_NE(server->listeners(1, 2), nullptr);
  EXPECT_EQ(server->listeners(1, 2)->v4[0].cookie, 2U);
  EXPECT_EQ(server->listeners(1, 3), nullptr);
}

TEST_F(EngineServerTest, sends_only_differences_later) {
  start();
  server->upsert_pod(pod_spec(1));
  server->update_routes(services(10, 3));
  ScriptedEngine& engine = connect();
  engine.hello();
  until("the pod listens", [&] { return happened("listening 1 1"); });
  engine.received.clear();

  server->upsert_pod(pod_spec(1));
  server->update_routes(services(10, 3));
  settle();
  EXPECT_EQ(engine.received.size(), 0U) << "equal calls cost nothing";

  server->upsert_pod(pod_spec(1, {8080}));
  until("the changed pod", [&] { return engine.count("pod") == 1; });
  auto routes = services(10, 4);
  routes.merge(services(11, 1));
  server->update_routes(routes);
  until("two routes", [&] { return engine.count("route") == 2; });
  server->update_routes({{"10.96.0.10:80", nullptr}});
  until("a route less", [&] { return engine.count("route_remove") == 1; });
  server->reopen_pod(1);
  until("a reopen", [&] { return engine.count("reopen") == 1; });
  server->remove_pod(1, true);
  server->remove_pod(1, false);
  until("a remove", [&] { return engine.count("remove") == 1; });
  settle();
  EXPECT_TRUE(engine.all<wire::Remove>()[0].cut);
  EXPECT_EQ(engine.received.size(), 6U);
  EXPECT_EQ(server->listeners(1, 1), nullptr);
}

TEST_F(EngineServerTest, sends_everything_again_after_a_reconnect) {
  start();
  server->upsert_pod(pod_spec(1));
  connect().hello();
  until("the pod listens", [&] { return happened("listening 1 1"); });
  engines[0]->socket.reset();
  until("the session is lost", [&] { return happened("lost 1"); });
  EXPECT_TRUE(server->sessions().empty());
  EXPECT_EQ(server->listeners(1, 1), nullptr);

  server->remove_pod(1, false);
  server->upsert_pod(pod_spec(2));
  ScriptedEngine& again = connect();
  again.hello();
  until("the new pod listens", [&] { return happened("listening 2 2"); });
  ASSERT_EQ(again.all<wire::Keep>().size(), 1U);
  EXPECT_EQ(again.all<wire::Keep>()[0].netns_cookie, 2U);
}

TEST_F(EngineServerTest, refuses_another_version_naming_both) {
  start();
  ScriptedEngine& engine = connect();
  engine.send(wire::Hello{.version = 2, .build = "9.9", .pid = 1});
  until("refused and closed", [&] { return engine.closed; });
  ASSERT_EQ(engine.count("refused"), 1U);
  const std::string reason = engine.all<wire::Refused>()[0].reason;
  EXPECT_NE(reason.find("version 2"), std::string::npos) << reason;
  EXPECT_NE(reason.find("version 1"), std::string::npos) << reason;
  settle();
  EXPECT_TRUE(events.empty()) << events[0];
}

TEST_F(EngineServerTest, passes_on_why_the_agent_refuses) {
  callbacks.on_hello = [](SessionId, std::int64_t, const std::string&) -> Result<Welcome> {
    return make_error(ErrorCode::kFull, "all 8 slots are taken");
  };
  start();
  ScriptedEngine& engine = connect();
  engine.hello();
  until("refused and closed", [&] { return engine.closed; });
  ASSERT_EQ(engine.count("refused"), 1U);
  EXPECT_EQ(engine.all<wire::Refused>()[0].reason, "all 8 slots are taken");
  settle();
  EXPECT_FALSE(happened("lost"));
}

TEST_F(EngineServerTest, serves_two_engines_and_spares_the_draining_one) {
  start();
  server->upsert_pod(pod_spec(1));
  ScriptedEngine& older = connect();
  older.hello();
  until("the older has the pod", [&] { return happened("listening 1 1"); });
  ScriptedEngine& newer = connect();
  newer.hello();
  until("the newer has it too", [&] { return happened("listening 2 1"); });
  older.send(wire::Stats{.connections = 12});
  older.send(wire::Draining{});
  until("draining", [&] { return happened("draining 1"); });
  ASSERT_EQ(server->sessions().size(), 2U);
  EXPECT_TRUE(server->sessions()[0].draining);
  EXPECT_EQ(server->sessions()[0].connections, 12U);
  EXPECT_FALSE(server->sessions()[1].draining);

  server->upsert_pod(pod_spec(2));
  server->update_routes(services(10, 1));
  until("the newer has the second", [&] { return happened("listening 2 2"); });
  server->remove_pod(1, false);
  until("both drop the first",
        [&] { return older.count("remove") == 1 && newer.count("remove") == 1; });
  settle();
  EXPECT_EQ(older.count("pod"), 1U);
  EXPECT_EQ(older.count("route"), 1U) << "its connections still ask for endpoints";
}

TEST_F(EngineServerTest, sends_20000_endpoints_in_one_route_and_in_many) {
  start();
  policy::Routes routes = services(1, 20000);
  for (std::uint8_t n = 2; n < 202; ++n) {
    routes.merge(services(n, 100));
  }
  server->update_routes(routes);
  ScriptedEngine& engine = connect();
  engine.hello();
  until("the snapshot's end", [&] { return engine.count("snapshot_end") == 1; });
  EXPECT_EQ(engine.count("route"), 201U);
  const auto sent = engine.all<wire::Route>();
  const auto large = std::max_element(sent.begin(), sent.end(), [](const auto& a, const auto& b) {
    return a.endpoints.size() < b.endpoints.size();
  });
  EXPECT_EQ(large->endpoints.size(), 20000U);
}

TEST_F(EngineServerTest, reads_many_frames_that_came_at_once) {
  start();
  ScriptedEngine& engine = connect();
  engine.hello();
  for (std::uint64_t i = 1; i <= 500; ++i) {
    engine.send(wire::Stats{.connections = i});
  }
  until("the last is seen",
        [&] { return !server->sessions().empty() && server->sessions()[0].connections == 500; });
}

TEST_F(EngineServerTest, the_socket_is_private_whatever_the_umask) {
  const mode_t before = ::umask(0);
  start();
  ::umask(before);
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

TEST_F(EngineServerTest, replaces_a_stale_socket_but_no_living_one) {
  start();
  EngineServer second(context, callbacks);
  EXPECT_EQ(second.listen(path).error().code, ErrorCode::kBusy);
  server->stop();
  struct stat status {};
  EXPECT_NE(::stat(path.c_str(), &status), 0) << "stop() removes its file";

  // A socket that was bound and closed leaves its file behind, as a killed agent does.
  const UniqueFd stale(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_TRUE(second.listen(path));
}

TEST_F(EngineServerTest, leaves_a_file_that_is_no_socket_alone) {
  std::ofstream(path) << "mine";
  EngineServer other(context, callbacks);
  EXPECT_EQ(other.listen(path).error().code, ErrorCode::kExists);
  EXPECT_EQ(other.listen(std::string(200, 'x')).error().code, ErrorCode::kInvalid);
  EXPECT_TRUE(std::ifstream(path).good());
}

}  // namespace
}  // namespace sidetrack::engines
