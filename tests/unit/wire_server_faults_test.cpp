// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include <algorithm>

#include "tests/unit/wire_test_engine.h"

namespace sidetrack::engines {
namespace {

using std::chrono::milliseconds;

struct Garbage {
  std::string name;
  std::string bytes;
};

std::string framed(const std::string& body) {
  return std::string{'\0', '\0', '\0', static_cast<char>(body.size())} + body;
}

class EngineServerGarbage : public EngineServerTest, public testing::WithParamInterface<Garbage> {};

TEST_P(EngineServerGarbage, ends_that_session_only) {
  start();
  server->upsert_pod(pod_spec(1));
  connect().hello();
  until("a good session", [&] { return happened("listening 1 1"); });
  ScriptedEngine& bad = connect();
  bad.send_bytes(GetParam().bytes);
  until("the bad one is closed", [&] { return bad.closed; });
  settle();
  EXPECT_EQ(server->sessions().size(), 1U);
  EXPECT_FALSE(happened("lost 1"));
  server->reopen_pod(1);
  until("the good one is served", [&] { return engines[0]->count("reopen") == 1; });
}

INSTANTIATE_TEST_SUITE_P(
    Wire, EngineServerGarbage,
    testing::Values(Garbage{"http", "GET / HTTP/1.1\r\n\r\n"},
                    Garbage{"huge_length", "\x7f\xff\xff\xff"}, Garbage{"no_json", framed("what")},
                    Garbage{"not_hello_first", framed(R"({"type":"draining"})")},
                    Garbage{"agent_message", framed(R"({"type":"keep","netns_cookie":1})")},
                    Garbage{"second_hello",
                            framed(R"({"type":"hello","version":1,"build":"x","pid":1})") +
                                framed(R"({"type":"hello","version":1,"build":"x","pid":1})")},
                    Garbage{"agent_message_later",
                            framed(R"({"type":"hello","version":1,"build":"x","pid":1})") +
                                framed(R"({"type":"keep","netns_cookie":1})")}),
    [](const auto& row) { return row.param.name; });

TEST_F(EngineServerTest, skips_messages_of_a_kind_it_does_not_know) {
  start();
  ScriptedEngine& engine = connect();
  engine.hello();
  engine.send_bytes(framed(R"({"type":"weather","sunny":true})"));
  engine.send(wire::Draining{});
  until("what followed is read", [&] { return happened("draining 1"); });
}

TEST_F(EngineServerTest, closes_who_does_not_say_hello) {
  timings.hello = milliseconds(20);
  start();
  ScriptedEngine& silent = connect();
  until("closed", [&] { return silent.closed; });
  EXPECT_TRUE(events.empty());
}

TEST_F(EngineServerTest, asks_about_64_pods_at_once_and_goes_on_as_they_are_answered) {
  start();
  for (std::uint64_t cookie = 1; cookie <= 200; ++cookie) {
    server->upsert_pod(pod_spec(cookie));
  }
  ScriptedEngine& engine = connect();
  engine.hello(false);
  until("the first window", [&] { return engine.count("pod") >= 64; });
  settle();
  EXPECT_EQ(engine.count("pod"), 64U);
  // All but pod 1 are answered: it does not hold up the others.
  std::size_t seen = 0;
  until("the last one listens", [&] {
    const auto pods = engine.all<wire::Pod>();
    for (; seen < pods.size(); ++seen) {
      if (pods[seen].netns_cookie != 1) {
        engine.send(
            wire::Listening{pods[seen].request_id, pods[seen].netns_cookie, {{15900, 1}}, {}});
      }
    }
    return server->listeners(1, 200) != nullptr;
  });
  EXPECT_EQ(server->listeners(1, 1), nullptr);
  EXPECT_EQ(engine.count("pod"), 200U);
}

TEST_F(EngineServerTest, a_slow_pod_fails_and_is_asked_again) {
  timings.answer = milliseconds(100);
  timings.retry_first = milliseconds(10);
  start();
  server->upsert_pod(pod_spec(1));
  ScriptedEngine& engine = connect();
  engine.hello(false);
  until("it fails and is asked again", [&] {
    return happened("failed 1 1 the engine did not answer in time") && engine.count("pod") >= 2;
  });
  std::size_t seen = 0;
  until("it listens in the end", [&] {
    const auto pods = engine.all<wire::Pod>();
    for (; seen < pods.size(); ++seen) {
      engine.send(wire::Listening{pods[seen].request_id, 1, {{15900, 1}}, {}});
    }
    return happened("listening 1 1 ");
  });
}

TEST_F(EngineServerTest, a_pod_that_cannot_be_opened_fails_alone) {
  timings.retry_first = milliseconds(10);
  bool gone = true;
  callbacks.open_netns = [&gone](std::uint64_t cookie) -> Result<UniqueFd> {
    if (cookie == 1 && gone) {
      return make_error(ErrorCode::kNotFound, "no process in it");
    }
    return UniqueFd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  };
  start();
  server->upsert_pod(pod_spec(1));
  server->upsert_pod(pod_spec(2));
  connect().hello();
  until("one fails, one works",
        [&] { return happened("failed 1 1 no process in it") && happened("listening 1 2"); });
  gone = false;
  until("tried again", [&] { return happened("listening 1 1"); });
}

TEST_F(EngineServerTest, a_pod_that_the_engine_refuses_is_tried_again) {
  timings.retry_first = milliseconds(10);
  start();
  server->upsert_pod(pod_spec(1));
  ScriptedEngine& engine = connect();
  engine.hello(false);
  until("asked", [&] { return engine.count("pod") == 1; });
  engine.send(wire::Failed{engine.all<wire::Pod>()[0].request_id, 1, "all ports taken"});
  until("told and asked again",
        [&] { return happened("failed 1 1 all ports taken") && engine.count("pod") == 2; });
}

TEST_F(EngineServerTest, an_engine_that_dies_in_the_snapshot_leaves_nothing_behind) {
  start();
  for (std::uint64_t cookie = 1; cookie <= 100; ++cookie) {
    server->upsert_pod(pod_spec(cookie));
  }
  auto routes = services(1, 20000);
  routes.merge(services(2, 20000));
  routes.merge(services(3, 20000));
  server->update_routes(routes);
  settle();
  const std::size_t before = open_files();
  for (int round = 1; round <= 5; ++round) {
    ScriptedEngine& engine = connect();
    engine.hello(false);
    until("the middle of it", [&] { return engine.count("route") >= 1; });
    EXPECT_EQ(engine.count("snapshot_end"), 0U);
    engine.socket.reset();
    until("it is lost", [&] { return happened("lost " + std::to_string(round)); });
    engines.clear();
  }
  EXPECT_EQ(open_files(), before);
}

TEST_F(EngineServerTest, leaks_no_descriptor_over_many_sessions_and_pods) {
  start();
  for (std::uint64_t cookie = 1; cookie <= 70; ++cookie) {
    server->upsert_pod(pod_spec(cookie));
  }
  settle();
  const std::size_t before = open_files();
  for (int round = 1; round <= 3; ++round) {
    ScriptedEngine& engine = connect();
    engine.hello();
    until("all listen",
          [&] { return server->listeners(static_cast<SessionId>(round), 70) != nullptr; });
    EXPECT_EQ(engine.fds.size(), 71U);
    engine.fds.clear();
    EXPECT_EQ(open_files(), before + 2) << "the server holds only its socket, the engine its own";
    engine.socket.reset();
    until("it is lost", [&] { return happened("lost " + std::to_string(round)); });
    engines.clear();
  }
  EXPECT_EQ(open_files(), before);
}

TEST_F(EngineServerTest, gives_up_an_engine_that_does_not_read) {
  timings.stalled = milliseconds(50);
  start();
  auto routes = services(1, 20000);
  routes.merge(services(2, 20000));
  server->update_routes(routes);
  ScriptedEngine& engine = connect();
  engine.hello();
  engine.reads = false;
  until("lost", [&] { return happened("lost 1"); });
}

TEST_F(EngineServerTest, gives_up_an_engine_whose_queue_is_full) {
  start();
  ScriptedEngine& engine = connect();
  engine.hello();
  until("registered", [&] { return engine.count("snapshot_end") == 1; });
  engine.reads = false;
  for (std::uint64_t cookie = 1; cookie <= 300000 && server->sessions().size() == 1; ++cookie) {
    server->upsert_pod(pod_spec(cookie));
    server->remove_pod(cookie, true);
  }
  EXPECT_TRUE(server->sessions().empty());
  until("lost", [&] { return happened("lost 1"); });
}

TEST_F(EngineServerTest, callbacks_may_call_back_in) {
  callbacks.on_listening = [this](SessionId, std::uint64_t cookie, const PodListeners&) {
    events.push_back("listening " + std::to_string(cookie));
    if (cookie < 50) {
      server->upsert_pod(pod_spec(cookie + 1));
      server->remove_pod(cookie, false);
    }
  };
  callbacks.open_netns = [this](std::uint64_t cookie) -> Result<UniqueFd> {
    if (cookie == 60) {
      server->remove_pod(60, false);
      server->upsert_pod(pod_spec(61));
    }
    server->update_routes(services(static_cast<std::uint8_t>(cookie), 2));
    return UniqueFd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  };
  callbacks.on_lost = [this](SessionId) {
    server->upsert_pod(pod_spec(70));
    server->stop();
    events.emplace_back("stopped");
  };
  start();
  server->upsert_pod(pod_spec(1));
  server->upsert_pod(pod_spec(60));
  ScriptedEngine& engine = connect();
  engine.hello();
  connect().hello();
  until("the chain has run", [&] { return happened("listening 50") && happened("listening 61"); });
  EXPECT_FALSE(happened("listening 60"));
  engine.socket.reset();
  until("stopped from a callback", [&] { return happened("stopped"); });
  settle();
  EXPECT_TRUE(server->sessions().empty());
}

TEST_F(EngineServerTest, stop_from_on_hello_is_safe) {
  callbacks.on_hello = [this](SessionId, std::int64_t, const std::string&) -> Result<Welcome> {
    server->stop();
    return Welcome{};
  };
  start();
  ScriptedEngine& engine = connect();
  engine.hello();
  until("closed", [&] { return engine.closed; });
  settle();
  EXPECT_TRUE(events.empty());
}

}  // namespace
}  // namespace sidetrack::engines
