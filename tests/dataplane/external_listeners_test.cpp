// SPDX-License-Identifier: Apache-2.0
// An external engine that listens with several sockets on one address (SO_REUSEPORT).
#include <fmt/format.h>
#include <signal.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/types.h"
#include "tests/dataplane/scale_node.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint16_t kEcho = 7000;
constexpr std::uint16_t kProxyPort = 15001;

class ExternalListenersTest : public ScaleNode {
 protected:
  void start() {
    server_ = &plain_pod("server");
    client_ = &meshed_pod("client");
    ST_ASSERT_VALUE(const std::string engine, cgroup_->child("engine"));
    ASSERT_NO_FATAL_FAILURE(
        make_sidetrack({.engine = fmt::format("external={}:{}", lab_->node_v4(), kProxyPort),
                        .agent_arguments = {"--engine-cgroup", engine}}));
    ST_ASSERT_OK(sidetrack_->start_agent());
    ASSERT_NO_FATAL_FAILURE(wait_until_enrolled("client"));
    engine_place_ = {lab_->node().path(), engine};
    ST_ASSERT_VALUE(proxy_, PodShell::start(engine_place_));
  }
  void listen() {
    int id = 0;
    ST_ASSERT_VALUE(const std::uint64_t cookie, listen_in(*proxy_, &id));
    listeners_[cookie] = id;
  }
  // The new listener's cookie.
  Result<std::uint64_t> listen_in(PodShell& proxy, int* id = nullptr) const {
    const auto socket =
        proxy.command(fmt::format("listen v4 {} {} reuseport", lab_->node_v4(), kProxyPort));
    ST_TRY(socket);
    if (socket->at("errno") != 0) {
      return make_error(ErrorCode::kIo, socket->dump());
    }
    if (id != nullptr) {
      *id = socket->at("id");
    }
    return proxy.cookie(socket->at("id"));
  }
  [[nodiscard]] bool is_redirected() const {
    return explain("client", fmt::format("{}:{}", server_->v4, kEcho)) == "redirected/redirected";
  }
  // The one whose end the kernel takes for the engine's.
  [[nodiscard]] std::uint64_t watched() const {
    const auto rows = sidetrack_->dump_map("st_engines");
    return rows ? rows->at(ST_EXTERNAL_ENGINE_SLOT)
                      .value("/formatted/value/listener_cookie_v4"_json_pointer, std::uint64_t{0})
                : 0;
  }

  Pod* server_ = nullptr;
  Pod* client_ = nullptr;
  Place engine_place_;
  std::unique_ptr<PodShell> proxy_;
  std::map<std::uint64_t, int> listeners_;  // ids by cookie
};

TEST_F(ExternalListenersTest, the_end_of_one_is_not_the_engines) {
  constexpr int kListeners = 8;
  ASSERT_NO_FATAL_FAILURE(start());
  for (int i = 0; i < kListeners; ++i) {
    ASSERT_NO_FATAL_FAILURE(listen());
  }
  ASSERT_TRUE(eventually(kPatience, [&] { return is_redirected(); }));
  milliseconds away{0};
  while (listeners_.size() > 1) {
    const auto found = listeners_.find(watched());
    ASSERT_NE(found, listeners_.end());
    const auto closed = Clock::now();
    ST_ASSERT_OK(proxy_->close(found->second));
    EXPECT_TRUE(eventually(kPatience, [&] { return is_redirected(); }));
    away += std::chrono::duration_cast<milliseconds>(Clock::now() - closed);
    listeners_.erase(found);
  }
  RecordProperty("away_ms", std::to_string(away.count()));
  // The agent looks at its engine every 200 ms, and when it is told of an end.
  EXPECT_LT(away, scaled(milliseconds(300))) << "of seven ends together";
  ST_ASSERT_OK(proxy_->close(listeners_.begin()->second));
  EXPECT_TRUE(eventually(kPatience, [&] { return !is_redirected(); }));
}

// Workers, each with listeners of its own, are killed together: the agent, told of the end of the
// one in its cell, looks while the others end.
TEST_F(ExternalListenersTest, no_listener_is_taken_for_there_that_ended_during_a_look) {
  constexpr int kRounds = 60;
  constexpr int kWorkers = 4;
  constexpr int kListeners = 2;  // of each: together as many as are watched
  ASSERT_NO_FATAL_FAILURE(start());
  const auto echo = echo_in(*server_, {fmt::format("echo:{}", kEcho)});
  const auto client = shell_in(*client_);
  int left = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::map<std::uint64_t, PodShell*> owners;
    std::vector<std::unique_ptr<PodShell>> workers;
    for (int i = 0; i < kWorkers * kListeners; ++i) {
      if (i % kListeners == 0) {
        ST_ASSERT_VALUE(auto worker, PodShell::start(engine_place_));
        workers.push_back(std::move(worker));
      }
      ST_ASSERT_VALUE(const std::uint64_t cookie, listen_in(*workers.back()));
      owners[cookie] = workers.back().get();
    }
    std::uint64_t cookie = 0;
    ASSERT_TRUE(eventually(kPatience, [&] { return owners.contains(cookie = watched()); }));
    ST_ASSERT_OK(owners[cookie]->process().signal(SIGKILL));
    // Another moment of its look in every round.
    const auto killed = Clock::now();
    while (Clock::now() - killed < std::chrono::microseconds(10) * round) {
    }
    for (const auto& worker : workers) {
      if (worker.get() != owners[cookie]) {
        ST_ASSERT_OK(worker->process().signal(SIGKILL));
      }
    }
    for (const auto& worker : workers) {
      worker->process().kill_hard();
    }
    ST_ASSERT_VALUE(const auto burst, client->burst(server_->v4, kEcho, {.count = 10}));
    EXPECT_EQ(burst.ok, 10U) << "round " << round;
    left += watched() != 0 ? 1 : 0;
  }
  EXPECT_EQ(left, 0) << "rounds";
}

}  // namespace
}  // namespace sidetrack::lab
