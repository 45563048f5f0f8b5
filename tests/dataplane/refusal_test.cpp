// SPDX-License-Identifier: Apache-2.0
// What an application is told by `on-engine-loss: closed`, beside what it is told without us.
#include "tests/dataplane/mesh.h"
#include "tests/lab/process.h"

namespace sidetrack::lab {
namespace {

class PodWithoutIpv6Test : public Mesh {
 protected:
  void start_sidetrack() override {
    ASSERT_NO_FATAL_FAILURE(take_ipv6_away());
    ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                       .name = "web",
                                       .netns_path = web_->netns.path(),
                                       .addresses = {web_->v4}}));
    Mesh::start_sidetrack();
  }
  virtual void take_ipv6_away() = 0;
  // `expected` is what TCP says without us.
  void expect_refusal(const std::string& expected) {
    label(kOnEngineLoss, "closed");
    sidetrack_->engine().kill_hard();
    ST_ASSERT_VALUE(auto v4, shell_->connect(api_->v4, kEcho));
    EXPECT_EQ(v4.errno_name, "ECONNREFUSED");
    ST_ASSERT_VALUE(auto mapped, shell_->connect(api_->v4, kEcho, {.family = Family::kV6}));
    EXPECT_EQ(mapped.errno_name, "ECONNREFUSED");
    for (const Blocking blocking : {Blocking::kYes, Blocking::kNo}) {
      const Counts before = counts();
      ST_ASSERT_VALUE(auto control, control_->connect(api_->v6, kEcho, {.blocking = blocking}));
      ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v6, kEcho, {.blocking = blocking}));
      EXPECT_EQ(control.errno_name, expected);
      EXPECT_EQ(socket.errno_name, control.errno_name);
      EXPECT_EQ(socket.first_errno, control.first_errno);
      EXPECT_EQ(counts(), plus_one(before, "engine_down_closed"));
    }
  }
};

class Ipv6SwitchedOffTest : public PodWithoutIpv6Test {
  void take_ipv6_away() override {
    for (const Pod* pod : {web_, plain_}) {
      ST_ASSERT_OK(pod->netns.write_sysctl("ipv6/conf/all/disable_ipv6", "1"));
    }
  }
};

TEST_F(Ipv6SwitchedOffTest, hears_what_tcp_says) {
  expect_refusal("EADDRNOTAVAIL");
}

class NoIpv6AddressTest : public PodWithoutIpv6Test {
  void take_ipv6_away() override {
    for (const Pod* pod : {web_, plain_}) {
      for (const char* what : {"address flush scope global", "route flush default"}) {
        ST_ASSERT_VALUE(const auto done,
                        run_command({.arguments = {"sh", "-c", std::string("ip -6 ") + what},
                                     .netns_path = pod->netns.path()}));
        ASSERT_EQ(done.exit_status, 0) << what << ": " << done.output;
      }
    }
  }
};

TEST_F(NoIpv6AddressTest, hears_what_tcp_says) {
  expect_refusal("ENETUNREACH");
}

}  // namespace
}  // namespace sidetrack::lab
