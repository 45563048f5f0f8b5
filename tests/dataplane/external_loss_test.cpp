// SPDX-License-Identifier: Apache-2.0
// External engines that die, are stopped or have no room: connections go direct or are refused, and
// to the engine again when it goes on.
#include <signal.h>

#include "sidetrack/abi/types.h"
#include "tests/dataplane/external_node.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

constexpr milliseconds kBeatIsOld{1200};  // ST_HEARTBEAT_STALE_NS and more

class ExternalLoss : public ExternalNode {
 protected:
  // Whether the kernel sees the listener's close, so that it needs no agent that looks.
  [[nodiscard]] bool is_watched() const {
    const auto rows = sidetrack_->dump_map("st_engines");
    return rows && rows->at(ST_EXTERNAL_ENGINE_SLOT)
                           .value(json::json_pointer("/formatted/value/beat_ns"),
                                  std::uint64_t{0}) == ST_BEAT_NOT_NEEDED;
  }

  void wait_until_left_out(const std::string& why) {
    ASSERT_TRUE(eventually(kPatience, [&] { return verdict(server_->v4) == "direct/engine_full"; }))
        << engine_view().dump();
    EXPECT_EQ(engine_view()["state"], "full");
    EXPECT_NE(engine_view().value("detail", "").find(why), std::string::npos)
        << engine_view().dump();
  }

  // A proxy that was stopped: what has waited for it is served, too.
  void expect_to_go_on(int waiting) {
    ST_ASSERT_OK(proxy_->signal(SIGCONT));
    wait_until_redirected(server_->v4);
    expect_bytes(server_->v4);
    EXPECT_EQ(seen_by(server_->v4), lab_->node_v4());
    ST_ASSERT_VALUE(const auto done, shell_->exchange(waiting, 1000));
    EXPECT_EQ(done.digest, done.expected_digest);
  }
};

TEST_F(ExternalLoss, haproxy_that_is_older_than_the_agent_outlives_it_and_its_death_is_seen) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  EXPECT_TRUE(eventually(kPatience, [&] { return is_watched(); }))
      << "the kernel is older than 6.12, or " << sidetrack_->logs();
  sidetrack_->agent().kill_hard();
  ST_ASSERT_OK(sidetrack_->start_agent());
  wait_until_redirected(server_->v4);
  expect_bytes(server_->v4);
  sidetrack_->agent().kill_hard();
  EXPECT_FALSE(eventually(kBeatIsOld, [&] { return seen_by(server_->v4) != lab_->node_v4(); }));
  proxy_->kill_hard();
  ST_ASSERT_VALUE(const auto burst, shell_->burst(server_->v4, kEcho, {.count = 50}));
  EXPECT_EQ(burst.ok, 50U);
  EXPECT_EQ(seen_by(server_->v4), client_->v4);
}

TEST_F(ExternalLoss, killed_haproxy_is_lost_in_the_same_instant) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  for (int round = 0; round < 5; ++round) {
    ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
    wait_until_redirected(server_->v4);
    const auto before = counted("engine_down");
    proxy_->kill_hard();  // returns when it is reaped: its listener is closed
    ST_ASSERT_VALUE(const auto burst, shell_->burst(server_->v4, kEcho, {.count = 50}));
    EXPECT_EQ(burst.ok, 50U) << round;
    EXPECT_EQ(counted("engine_down"), before + 50) << round;
  }
}

TEST_F(ExternalLoss, haproxy_with_a_full_queue_is_left_out_until_it_goes_on) {
  constexpr std::uint64_t kQueue = 64;
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ST_ASSERT_OK(lab_->node().write_sysctl("core/somaxconn", std::to_string(kQueue)));
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  expect_bytes(server_->v4);
  ST_ASSERT_OK(proxy_->signal(SIGSTOP));
  ST_ASSERT_VALUE(const auto waiting, shell_->connect(server_->v4, kEcho));
  EXPECT_EQ(waiting.errno_name, "");
  ST_ASSERT_VALUE(const auto held, shell_->hold(server_->v4, kEcho, kQueue * 3 / 4));
  ASSERT_EQ(held, kQueue * 3 / 4);
  // At the next look, not after a second.
  wait_until_left_out("three quarters full");
  const auto direct = counted("engine_full");
  ST_ASSERT_VALUE(const auto burst, shell_->burst(server_->v4, kEcho, {.count = 50}));
  EXPECT_EQ(burst.ok, 50U);
  // A SYN that is dropped comes again after a second.
  EXPECT_LT(burst.max_us, 1'000'000);
  EXPECT_EQ(seen_by(server_->v4), client_->v4);
  EXPECT_EQ(counted("engine_full"), direct + 51);
  expect_to_go_on(waiting.id);
}

TEST_F(ExternalLoss, proxy_whose_queue_is_never_empty_but_moves_is_left_in) {
  constexpr std::uint64_t kWaiting = 3;
  constexpr std::uint64_t kAccepted = 4;
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(listen_as_proxy(lab_->node_v4()));
  ASSERT_TRUE(
      eventually(kPatience, [&] { return verdict(server_->v4) == "redirected/redirected"; }));
  ST_ASSERT_VALUE(const auto held, shell_->hold(server_->v4, kEcho, kWaiting));
  ASSERT_EQ(held, kWaiting);
  // One comes for each that is accepted.
  for (std::uint64_t i = 0; i < kAccepted; ++i) {
    EXPECT_FALSE(
        eventually(milliseconds(400), [&] { return engine_view().value("state", "") != "up"; }))
        << i << " " << engine_view().dump();
    ST_ASSERT_VALUE(const auto next, shell_->hold(server_->v4, kEcho, 1));
    ASSERT_EQ(next, 1U);
    ST_ASSERT_VALUE(const auto accepted, listener_->accept(listening_));
    ASSERT_EQ(accepted.error_number, 0);
  }
  EXPECT_EQ(counted("redirected"), kWaiting + kAccepted);
}

class ExternalLossOfEach : public ExternalLoss, public testing::WithParamInterface<ProxyKind> {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(ExternalNode::SetUp());
    if (!IsSkipped()) {
      find_proxy(GetParam());
    }
  }
  void start_proxy() {
    ASSERT_NO_FATAL_FAILURE(start_proxy_here(GetParam(), {lab_->node_v4()}));
    wait_until_redirected(server_->v4);
  }
};

TEST_P(ExternalLossOfEach, stopped_one_is_left_out_after_a_second) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_proxy());
  ST_ASSERT_VALUE(const auto busy,
                  shell_->burst(server_->v4, kEcho, {.count = 2000, .threads = 16}));
  EXPECT_EQ(busy.ok, 2000U);
  EXPECT_EQ(counted("redirected"), 2000U) << "a busy proxy was taken for one that hangs";
  ST_ASSERT_OK(proxy_->signal(SIGSTOP));
  const auto stopped = Clock::now();
  ST_ASSERT_VALUE(const auto waiting, shell_->connect(server_->v4, kEcho));
  EXPECT_EQ(waiting.errno_name, "");
  wait_until_left_out("accepted none for a second");
  const auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - stopped);
  RecordProperty("busy_ms", std::to_string(busy.total_us / 1000));
  RecordProperty("left_out_after_ms", std::to_string(took.count()));
  EXPECT_GE(took, milliseconds(1000));
  EXPECT_LT(took, scaled(milliseconds(2000))) << "a second, two looks and what the machine takes";
  EXPECT_EQ(seen_by(server_->v4), client_->v4);
  expect_to_go_on(waiting.id);
}

TEST_P(ExternalLossOfEach, one_that_is_full_or_dead_refuses_if_the_pod_says_closed) {
  constexpr std::uint64_t kQueue = 64;
  const std::string refused = "refused/engine_down_closed";
  const auto expect_refused = [&] {
    const auto before = counted("engine_down_closed");
    ST_ASSERT_VALUE(const auto burst, shell_->burst(server_->v4, kEcho, {.count = 20}));
    EXPECT_EQ(json(burst.connect_errors), (json{{"ECONNREFUSED", 20}}));
    EXPECT_EQ(counted("engine_down_closed"), before + 20);
  };
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ST_ASSERT_OK(
      objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/on-engine-loss", "closed"));
  ST_ASSERT_OK(lab_->node().write_sysctl("core/somaxconn", std::to_string(kQueue)));
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_proxy());
  ST_ASSERT_OK(proxy_->signal(SIGSTOP));
  ST_ASSERT_VALUE(const auto waiting, shell_->connect(server_->v4, kEcho));
  ST_ASSERT_OK(shell_->hold(server_->v4, kEcho, kQueue * 3 / 4));
  ASSERT_TRUE(eventually(kPatience, [&] { return verdict(server_->v4) == refused; }))
      << verdict(server_->v4) << engine_view().dump();
  EXPECT_EQ(engine_view()["state"], "full");
  expect_refused();
  ASSERT_NO_FATAL_FAILURE(expect_to_go_on(waiting.id));
  proxy_->kill_hard();
  expect_refused();
  ASSERT_NO_FATAL_FAILURE(start_proxy());
  expect_bytes(server_->v4);
  EXPECT_EQ(counted("engine_full") + counted("engine_down"), 0U) << "something went direct";
}

INSTANTIATE_TEST_SUITE_P(All, ExternalLossOfEach,
                         testing::Values(ProxyKind::kHaproxy, ProxyKind::kEnvoy),
                         [](const auto& proxy) { return testing::PrintToString(proxy.param); });

}  // namespace
}  // namespace sidetrack::lab
