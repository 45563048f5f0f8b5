// SPDX-License-Identifier: Apache-2.0
// The ring of flow records under a pod whose connects are refused as fast as it can ask: no engine
// runs, the pod says `closed`.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>

#include "agent/dataplane/dataplane.h"
#include "sidetrack/cgroup/process_cgroup.h"
#include "sidetrack/unique_fd.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/netns.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint64_t kRecord = sizeof(st_flow) + BPF_RINGBUF_HDR_SZ;
constexpr std::uint64_t kRoom = ST_FLOW_RING_BYTES / kRecord;

class RingsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("rings"));
    cgroup_.emplace(std::move(cgroup));
    ST_ASSERT_VALUE(auto netns, Netns::create("rings"));
    netns_.emplace(std::move(netns));
    ST_ASSERT_VALUE(const std::uint64_t cookie, netns_->cookie());
    pin_dir_ = "/sys/fs/bpf/" + unique_name("rings");
    ST_ASSERT_VALUE(dataplane_, dataplane::Dataplane::open(
                                    {.pin_dir = pin_dir_, .cgroup_dir = cgroup_->path()}));
    ST_ASSERT_OK(dataplane_->set_config({}));
    st_pod pod{};
    pod.mode = ST_MODE_REDIRECT;
    pod.on_engine_loss = ST_ON_ENGINE_LOSS_CLOSED;
    ST_ASSERT_VALUE(pod.namespace_slot, dataplane_->namespace_slot("shop"));
    ST_ASSERT_OK(dataplane_->upsert_pod(cookie, pod));
    ST_ASSERT_VALUE(home_, cgroup::folder_of_process(::getpid()));
    ST_ASSERT_OK(cgroup_->add(::getpid()));
    // A socket belongs to the cgroup and the netns that it was made in.
    ST_ASSERT_VALUE(client_, netns_->call([]() -> Result<UniqueFd> {
      UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      return fd.valid() ? Result<UniqueFd>(std::move(fd)) : errno_error("socket", errno);
    }));
  }
  void TearDown() override {
    if (!home_.empty()) {
      EXPECT_TRUE(write_existing(home_ + "/cgroup.procs", std::to_string(::getpid())));
    }
    dataplane_.reset();
    if (!pin_dir_.empty()) {
      EXPECT_TRUE(dataplane::Dataplane::uninstall(pin_dir_));
    }
  }

  [[nodiscard]] bool is_refused() const {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(80);
    to.sin_addr.s_addr = inet_addr("10.9.8.7");
    return ::connect(client_.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0 &&
           errno == ECONNREFUSED;
  }
  // How many of `count` connects were refused.
  [[nodiscard]] std::uint64_t refused_of(std::uint64_t count) const {
    std::uint64_t refused = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
      refused += is_refused() ? 1 : 0;
    }
    return refused;
  }
  [[nodiscard]] st_counters counted() const {
    const auto rows = dataplane_->counters();
    for (const dataplane::CounterRow& row : rows.value()) {
      if (row.namespace_name == "shop") {
        return row.counters;
      }
    }
    return {};
  }

  std::string home_;
  std::string pin_dir_;
  std::optional<TestCgroup> cgroup_;
  std::optional<Netns> netns_;
  std::unique_ptr<dataplane::Dataplane> dataplane_;
  UniqueFd client_;
};

TEST_F(RingsTest, refused_connects_leave_room_for_other_records) {
  ASSERT_EQ(refused_of(kRoom), kRoom);
  std::uint64_t told = 0;
  dataplane_->drain([&](const st_flow& flow) { told += flow.close == ST_CLOSE_REFUSED ? 1 : 0; },
                    [](const st_event&) {});
  EXPECT_EQ(told, ST_FLOW_RING_BYTES / 4 / kRecord + 1);
  const st_counters counters = counted();
  EXPECT_EQ(counters.connections[ST_REASON_ENGINE_DOWN_CLOSED], kRoom);
  EXPECT_EQ(counters.flows_dropped, kRoom - told);
}

TEST_F(RingsTest, a_drain_ends_though_each_record_that_it_reads_is_followed_by_another) {
  constexpr std::uint64_t kMany = 2 * kRoom;
  ASSERT_TRUE(is_refused());
  std::uint64_t told = 0;
  const auto drain = [&] {
    dataplane_->drain(
        [&](const st_flow&) {
          if (++told < kMany) {
            EXPECT_TRUE(is_refused());
          }
        },
        [](const st_event&) {});
  };
  drain();
  EXPECT_GE(told, kRoom);
  EXPECT_LT(told, kMany);
  while (told < kMany) {  // nothing was lost where it ended
    const std::uint64_t before = told;
    drain();
    ASSERT_GT(told, before);
  }
  EXPECT_EQ(told, kMany);
  EXPECT_EQ(counted().flows_dropped, 0U);
}

}  // namespace
}  // namespace sidetrack::lab
