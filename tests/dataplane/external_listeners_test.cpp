// SPDX-License-Identifier: Apache-2.0
// An external engine that listens with several sockets on one address (SO_REUSEPORT).
#include <fmt/format.h>

#include <map>

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
    meshed_pod("client");
    ST_ASSERT_VALUE(const std::string engine, cgroup_->child("engine"));
    ASSERT_NO_FATAL_FAILURE(
        make_sidetrack({.engine = fmt::format("external={}:{}", lab_->node_v4(), kProxyPort),
                        .agent_arguments = {"--engine-cgroup", engine}}));
    ST_ASSERT_OK(sidetrack_->start_agent());
    ASSERT_NO_FATAL_FAILURE(wait_until_enrolled("client"));
    ST_ASSERT_VALUE(proxy_, PodShell::start({lab_->node().path(), engine}));
  }
  void listen() {
    ST_ASSERT_VALUE(const auto socket, proxy_->command(fmt::format("listen v4 {} {} reuseport",
                                                                   lab_->node_v4(), kProxyPort)));
    ASSERT_EQ(socket["errno"], 0) << socket;
    ST_ASSERT_VALUE(const std::uint64_t cookie, proxy_->cookie(socket["id"]));
    listeners_[cookie] = socket["id"];
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

}  // namespace
}  // namespace sidetrack::lab
