// SPDX-License-Identifier: Apache-2.0
// Pods come, change and go with connections open.
#include <fmt/format.h>

#include <csignal>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

// A namespace that is freed takes its interfaces along: the other end of this pair vanishes.
constexpr const char* kProbe = "probe0";
constexpr int kConnections = 5;
// From the end of the pod's last process until its netns is gone.
const milliseconds kFreed = scaled(milliseconds(1000));

class Lifecycle : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    start_echo({"echo:7000", "silent:7001"});
    start_sidetrack();
  }
  int open_stream(std::uint16_t port = kEcho) {
    const auto socket = shell_->connect(api_v4_, port);
    EXPECT_TRUE(socket.has_value() && socket->error_number == 0) << sidetrack_->logs();
    return socket ? socket->id : 0;
  }
  // Connections that only the engine still holds: their client is dead, their server never closes.
  void leave_connections_at_the_engine() {
    ST_ASSERT_OK(lab_->node().ip(fmt::format("link add {} type veth peer name probe1 netns {}\n",
                                             kProbe, web_->netns.name())));
    for (int i = 0; i < kConnections; ++i) {
      open_stream(7001);
    }
    ASSERT_TRUE(eventually(kPatience, [&] { return engine_connections() == kConnections; }))
        << sidetrack_->logs();
    shell_.reset();
  }
  [[nodiscard]] std::uint64_t engine_connections() const {
    const auto status = sidetrack_->get("/v1/status");
    return status ? status->value("/engines/0/connections"_json_pointer, std::uint64_t{0}) : 0;
  }
  [[nodiscard]] bool probe_is_there() const {
    return lab_->node().ip(fmt::format("link show dev {}\n", kProbe)).has_value();
  }
  void expect_netns_freed() {
    EXPECT_TRUE(probe_is_there());
    lab_->remove_pod(*web_);
    EXPECT_TRUE(eventually(kFreed, [&] { return !probe_is_there(); })) << sidetrack_->logs();
  }
  // Waits until the engine has taken its listeners out of the pod.
  void wait_until_engine_left() {
    ASSERT_TRUE(eventually(kPatience, [&] {
      const auto socket = shell_in(*web_)->connect("127.0.0.1", listener_port_);
      return socket && socket->errno_name == "ECONNREFUSED";
    })) << sidetrack_->logs();
  }
  void remember_listener() {
    const auto pod = sidetrack_->pod("shop/web");
    listener_port_ = pod ? pod->at("engine_ports").at(0).get<std::uint16_t>() : 0;
    ASSERT_NE(listener_port_, 0);
  }
  std::uint16_t listener_port_ = 0;
};

TEST_F(Lifecycle, a_netns_that_goes_before_its_pod_object_is_freed) {
  ASSERT_NO_FATAL_FAILURE(leave_connections_at_the_engine());
  expect_netns_freed();
}

TEST_F(Lifecycle, a_netns_that_goes_with_its_pod_object_is_freed) {
  ASSERT_NO_FATAL_FAILURE(leave_connections_at_the_engine());
  ST_ASSERT_OK(objects_->remove(Kind::kPod, "shop/web"));
  expect_netns_freed();
}

TEST_F(Lifecycle, a_netns_that_goes_long_after_its_pod_object_is_freed) {
  ASSERT_NO_FATAL_FAILURE(remember_listener());
  ASSERT_NO_FATAL_FAILURE(leave_connections_at_the_engine());
  ST_ASSERT_OK(objects_->remove(Kind::kPod, "shop/web"));
  ASSERT_NO_FATAL_FAILURE(wait_until_engine_left());
  expect_netns_freed();
}

TEST_F(Lifecycle, the_netns_of_a_pod_that_left_the_mesh_is_freed) {
  ASSERT_NO_FATAL_FAILURE(remember_listener());
  ASSERT_NO_FATAL_FAILURE(leave_connections_at_the_engine());
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/web", "sidetrack.io/mode", "disabled"));
  ASSERT_NO_FATAL_FAILURE(wait_until_engine_left());
  expect_netns_freed();
}

TEST_F(Lifecycle, a_pod_without_lo_goes_direct_until_it_has_it) {
  ST_ASSERT_OK(web_->netns.ip("link set lo down\n"));
  ASSERT_TRUE(eventually(kPatience, [&] {
    const auto pod = sidetrack_->pod("shop/web");
    return pod && pod->value("reason", "") == "loopback_down";
  })) << sidetrack_->logs();
  EXPECT_EQ(sidetrack_->pod("shop/web")->value("state", ""), "drift");
  expect_connections(10, "engine_down");
  ST_ASSERT_OK(web_->netns.ip("link set lo up\n"));
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  expect_connections(10, "redirected");
}

TEST_F(Lifecycle, a_pod_that_comes_without_lo_holds_up_no_other) {
  ST_ASSERT_VALUE(Pod* const late, lab_->add_pod("late"));
  ST_ASSERT_OK(late->netns.ip("link set lo down\n"));
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = "late",
                                     .netns_path = late->netns.path(),
                                     .addresses = {late->v4, late->v6}}));
  ASSERT_TRUE(eventually(kPatience, [&] {
    const auto pod = sidetrack_->pod("shop/late");
    return pod && pod->value("reason", "") == "loopback_down";
  })) << sidetrack_->logs();
  expect_connections(10, "redirected");
  ST_ASSERT_VALUE(const auto burst, shell_in(*late)->burst(api_v4_, kEcho, {.count = 10}));
  expect_clean(burst, 10, sidetrack_->logs());
  ST_ASSERT_OK(late->netns.ip("link set lo up\n"));
  ASSERT_NO_FATAL_FAILURE(wait_enrolled("late"));
  const auto pod = sidetrack_->pod("shop/late");
  ASSERT_TRUE(pod.has_value());
  EXPECT_EQ(pod->at("engine_ports").size(), pod->at("engine_ports_v6").size());
}

TEST_F(Lifecycle, leaving_the_mesh_cuts_nothing) {
  ASSERT_NO_FATAL_FAILURE(remember_listener());
  const int stream = open_stream();
  expect_alive(*shell_, stream);
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/web", "sidetrack.io/mode", "disabled"));
  ASSERT_TRUE(eventually_explains("not_enrolled"));
  expect_connections(10, "not_enrolled");
  ASSERT_NO_FATAL_FAILURE(wait_until_engine_left());
  expect_alive(*shell_, stream, 100'000);
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/web", "sidetrack.io/mode", std::nullopt));
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  expect_connections(10, "redirected");
  expect_alive(*shell_, stream, 100'000);
}

TEST_F(Lifecycle, a_deleted_object_with_a_living_netns_cuts_nothing) {
  const int stream = open_stream();
  ST_ASSERT_OK(objects_->remove(Kind::kPod, "shop/web"));
  ASSERT_TRUE(eventually(kPatience, [&] { return !sidetrack_->pod("shop/web").has_value(); }));
  expect_alive(*shell_, stream);
}

TEST_F(Lifecycle, a_netns_can_become_another_pods) {
  const int stream = open_stream();
  ST_ASSERT_OK(objects_->remove(Kind::kPod, "shop/web"));
  put_web("web-2");
  ASSERT_NO_FATAL_FAILURE(wait_enrolled("web-2"));
  EXPECT_EQ(explain("web-2"), "redirected");
  expect_alive(*shell_, stream);
  const Counts before = counted();
  ST_ASSERT_VALUE(const auto burst, shell_->burst(api_v4_, kEcho, {.count = 10}));
  expect_clean(burst, 10, sidetrack_->logs());
  EXPECT_EQ(since(before), (Counts{{"redirected", 10}}));
  EXPECT_FALSE(sidetrack_->pod("shop/web").has_value());
}

TEST_F(Lifecycle, a_name_can_get_another_netns) {
  ST_ASSERT_VALUE(Pod* const other, lab_->add_pod("other"));
  const int stream = open_stream();
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = "web",
                                     .netns_path = other->netns.path(),
                                     .addresses = {other->v4, other->v6}}));
  ST_ASSERT_VALUE(const std::uint64_t cookie, other->netns.cookie());
  ASSERT_TRUE(eventually(kPatience, [&] {
    const auto pod = sidetrack_->pod("shop/web");
    return pod && pod->value("netns_cookie", std::uint64_t{0}) == cookie &&
           pod->value("state", "") == "enrolled";
  })) << sidetrack_->logs();
  EXPECT_FALSE(kernel().pod(cookie_).has_value());
  (void)shell_->close(stream);
  cookie_ = cookie;
  shell_ = shell_in(*other);
  expect_connections(5, "redirected");
}

}  // namespace
}  // namespace sidetrack::lab
