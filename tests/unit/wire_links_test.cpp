// SPDX-License-Identifier: Apache-2.0
// The agent's end of handoff: who gets the map, whose links are taken.
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/unit/wire_test_engine.h"

namespace sidetrack::engines {
namespace {

class EngineServerLinks : public EngineServerTest {
 protected:
  EngineServerLinks() : slots_(::memfd_create("st_slots", MFD_CLOEXEC)) {}

  // An engine in cell `session`, which is what the callbacks of the fixture give it.
  ScriptedEngine& registered(bool with_slots) {
    slots_fd = with_slots ? slots_.get() : -1;
    start();
    ScriptedEngine& engine = connect();
    engine.hello();
    until("welcome", [&] { return engine.count("snapshot_end") == 1; });
    return engine;
  }

  UniqueFd slots_;
};

bool is_same_file(const UniqueFd& a, const UniqueFd& b) {
  struct stat first {};
  struct stat second {};
  return ::fstat(a.get(), &first) == 0 && ::fstat(b.get(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

TEST_F(EngineServerLinks, the_map_follows_the_welcome) {
  const ScriptedEngine& engine = registered(true);
  ASSERT_GE(engine.received.size(), 3U);
  EXPECT_EQ(wire::kind_of(engine.received[0]), "welcome");
  EXPECT_EQ(wire::kind_of(engine.received[1]), "slots");
  EXPECT_EQ(wire::kind_of(engine.received[2]), "snapshot_begin");
  ASSERT_EQ(engine.fds.size(), 2U);
  EXPECT_TRUE(is_same_file(engine.fds[1], slots_));
}

TEST_F(EngineServerLinks, no_map_without_the_fast_path) {
  const ScriptedEngine& engine = registered(false);
  EXPECT_EQ(engine.count("slots"), 0U);
  EXPECT_EQ(engine.fds.size(), 1U);
}

TEST_F(EngineServerLinks, tells_the_agent_of_the_first_and_the_last_own_link) {
  ScriptedEngine& engine = registered(true);
  engine.send(wire::Link{.client_cookie = 7, .server_cookie = 8, .index = ST_LINKS_PER_ENGINE});
  engine.send(
      wire::Link{.client_cookie = 9, .server_cookie = 10, .index = 2 * ST_LINKS_PER_ENGINE - 1});
  until("both", [&] { return happened("link 1 7 8 8192") && happened("link 1 9 10 16383"); });
}

class EngineServerForeignLink : public EngineServerLinks,
                                public testing::WithParamInterface<std::uint32_t> {};

TEST_P(EngineServerForeignLink, ends_the_session) {
  ScriptedEngine& engine = registered(true);
  engine.send(wire::Link{.client_cookie = 7, .server_cookie = 8, .index = GetParam()});
  until("closed", [&] { return engine.closed && happened("lost 1"); });
  EXPECT_FALSE(happened("link"));
}

INSTANTIATE_TEST_SUITE_P(Wire, EngineServerForeignLink,
                         testing::Values(0U, ST_LINKS_PER_ENGINE - 1U, 2U * ST_LINKS_PER_ENGINE,
                                         wire::kMaxLinks - 1U));

TEST_F(EngineServerLinks, a_link_without_the_map_ends_the_session) {
  ScriptedEngine& engine = registered(false);
  engine.send(wire::Link{.client_cookie = 7, .server_cookie = 8, .index = ST_LINKS_PER_ENGINE});
  until("closed", [&] { return engine.closed && happened("lost 1"); });
  EXPECT_FALSE(happened("link"));
}

TEST_F(EngineServerLinks, an_agent_that_does_not_care_lives_on) {
  callbacks.on_link = Callbacks().on_link;
  ScriptedEngine& engine = registered(true);
  engine.send(wire::Link{.client_cookie = 7, .server_cookie = 8, .index = ST_LINKS_PER_ENGINE});
  engine.send(wire::Draining{});
  until("what followed is read", [&] { return happened("draining 1"); });
}

}  // namespace
}  // namespace sidetrack::engines
