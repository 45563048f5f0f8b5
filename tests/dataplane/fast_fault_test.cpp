// SPDX-License-Identifier: Apache-2.0
// The agent dies, restarts, is replaced and is uninstalled under a thousand connections that skip
// TCP: directly, and past the engine. None of them notices.
#include <bpf/bpf.h>

#include <cerrno>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "sidetrack/unique_fd.h"
#include "tests/dataplane/fast_talkers.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint64_t kStreams = 1000;

class FastFault : public FastTalkers, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    FastTalkers::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    ASSERT_NO_FATAL_FAILURE(start({.mode = GetParam()}));
    ASSERT_NO_FATAL_FAILURE(hold(kStreams));
    ASSERT_NO_FATAL_FAILURE(expect_all_adopted(kStreams));
    expect_all_fast(kStreams);
    ASSERT_FALSE(HasFailure());
    talk_ = std::make_unique<Talk>(*shell_, kStreams);
    ASSERT_TRUE(talk_->goes_on());
  }
  void TearDown() override { talk_.reset(); }

  // What the agent's end is for them: nothing. Then they go on without it.
  void expect_unnoticed() {
    EXPECT_TRUE(talk_->goes_on());
    EXPECT_EQ(talk_->stop(), "") << sidetrack_->logs();
  }
  // An agent is back: they are adopted as before, and skip TCP again.
  void expect_back() {
    for (const char* pod : {"client", "server"}) {
      ASSERT_NO_FATAL_FAILURE(wait_until_enrolled(pod, options_.mode));
    }
    ASSERT_NO_FATAL_FAILURE(expect_unnoticed());
    ASSERT_NO_FATAL_FAILURE(expect_all_adopted(kStreams));
    expect_all_fast(kStreams);
  }
  void stop_agent() {
    ST_ASSERT_VALUE(const int status, sidetrack_->agent().terminate());
    EXPECT_EQ(status, 0);
  }

  // Where the counters are seen, also when the pins are gone.
  [[nodiscard]] std::string keep_counters() const {
    const std::string name = "/v1/maps/st_fast_counters";
    const std::string kept = sidetrack_->pin_dir() + "-kept";
    std::filesystem::create_directories(std::filesystem::path(kept + name).parent_path());
    const UniqueFd map(bpf_obj_get((sidetrack_->pin_dir() + name).c_str()));
    EXPECT_EQ(bpf_obj_pin(map.get(), (kept + name).c_str()), 0) << errno;
    return kept;
  }

  std::unique_ptr<Talk> talk_;
};

TEST_P(FastFault, an_agent_that_is_killed_and_started_again) {
  sidetrack_->agent().kill_hard();
  ASSERT_TRUE(talk_->goes_on());
  ST_ASSERT_OK(sidetrack_->start_agent());
  expect_back();
}

TEST_P(FastFault, an_agent_that_is_stopped_and_started_again) {
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  ASSERT_TRUE(talk_->goes_on());
  ST_ASSERT_OK(sidetrack_->start_agent());
  expect_back();
}

TEST_P(FastFault, a_standby_agent_that_takes_over) {
  ProcessSpec spec = sidetrack_->agent_spec();
  spec.arguments.emplace_back("--standby");
  ST_ASSERT_VALUE(auto standby, Process::start(spec));
  ST_ASSERT_OK(standby->wait_for_output("event=standby"));
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  ASSERT_TRUE(eventually(3 * kPatience, [&] {
    const auto status = sidetrack_->get("/v1/status");
    return status && status->value("/agent/pid"_json_pointer, 0) == standby->pid() &&
           (*status)["fast_path"] == "on";
  })) << standby->output();
  expect_back();
  ST_ASSERT_VALUE(const int status, standby->terminate());
  EXPECT_EQ(status, 0);
}

// The sockets stay known to the kernel's sockmap, and send by TCP.
TEST_P(FastFault, uninstall) {
  ASSERT_NO_FATAL_FAILURE(stop_agent());
  ASSERT_TRUE(talk_->goes_on());
  const std::string kept = keep_counters();
  ST_ASSERT_VALUE(const auto done, sidetrack_->uninstall());
  EXPECT_EQ(done.exit_status, 0) << done.output;
  EXPECT_FALSE(std::filesystem::exists(sidetrack_->pin_dir())) << done.output;
  ASSERT_NO_FATAL_FAILURE(expect_unnoticed());
  ST_ASSERT_VALUE(const FastCounts before, KernelView(kept).fast_counts());
  expect_exact(kStreams);
  ST_ASSERT_VALUE(const FastCounts after, KernelView(kept).fast_counts());
  EXPECT_GT(before.messages + before.handoffs, 2 * kStreams);
  EXPECT_EQ(after.messages, before.messages);
  EXPECT_EQ(after.handoffs, before.handoffs);
}

INSTANTIATE_TEST_SUITE_P(Ways, FastFault, testing::Values("passthrough", "redirect"),
                         [](const auto& way) { return std::string(way.param); });

}  // namespace
}  // namespace sidetrack::lab
