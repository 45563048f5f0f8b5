// SPDX-License-Identifier: Apache-2.0
// Policy that is wrong, levels that add up, TCP options. What changes while connections are made
// and open: edits_test.cpp.
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

class RulesTest : public Mesh {
 protected:
  // Waits for a problem of `object` and `key` in `sidetrackctl status` and gives it.
  [[nodiscard]] json problem_of(const std::string& object, const std::string& key) const {
    json found;
    EXPECT_TRUE(eventually(kPatience,
                           [&] {
                             const auto status = sidetrack_->ctl({"-o", "json", "status"});
                             const json view =
                                 status ? json::parse(status->standard_output, nullptr, false)
                                        : json();
                             if (!view.is_object()) {
                               return false;
                             }
                             for (const json& problem : view.value("problems", json::array())) {
                               if (problem["object"] == object && problem["key"] == key) {
                                 found = problem;
                                 return true;
                               }
                             }
                             return false;
                           }))
        << object << " " << key;
    return found;
  }
};

TEST_F(RulesTest, unknown_mode_counts_as_passthrough) {
  enrol_neighbour();
  label(kMode, "redirct");
  const json problem = problem_of("Namespace/shop", kMode);
  EXPECT_EQ(problem["value"], "redirct");
  EXPECT_EQ(problem["severity"], "error");
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
  ST_ASSERT_VALUE(auto pod, sidetrack_->pod("shop/web"));
  EXPECT_EQ(pod["reason"], "invalid_mode") << pod;
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "observed");
  EXPECT_EQ(role_of_connect(*control_, api_->v4, kEcho), "redirected") << "the neighbour";
  ST_ASSERT_VALUE(auto table, sidetrack_->ctl({"status"}));
  EXPECT_NE(table.output.find("redirct"), std::string::npos) << table.output;
}

TEST_F(RulesTest, bad_list_keeps_its_last_good_value_and_the_other_keys_apply) {
  enrol_neighbour();
  annotate(kExcludePorts, "7000");
  ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", kExcludePorts, "7000,http"));
  const json problem = problem_of("Namespace/shop", kExcludePorts);
  EXPECT_NE(problem["value"].get<std::string>().find("http"), std::string::npos);
  EXPECT_NE(problem["reason"].get<std::string>().find("last good value"), std::string::npos)
      << problem;
  annotate(kExcludeCidrs, "10.244.0.0/16:443");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "none") << "last good value";
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kHttps), "none") << "another key of the object";
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "redirected");
  EXPECT_EQ(role_of_connect(*control_, api_->v4, kEcho), "redirected") << "the neighbour";
  const json view = explain(api_->v4, kEcho);
  EXPECT_EQ(view["reason"], "excluded_port");
  EXPECT_EQ(view["rule"]["value"], "7000") << view;
}

TEST_F(RulesTest, bad_list_without_a_last_good_value_makes_the_pod_passthrough) {
  enrol_neighbour();
  annotate(kExcludePorts, "7000-6000");
  const json problem = problem_of("Namespace/shop", kExcludePorts);
  EXPECT_EQ(problem["value"], "7000-6000");
  EXPECT_EQ(sidetrack_->metric("sidetrack_policy_rejected"), 1.0);
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
  ST_ASSERT_VALUE(auto pod, sidetrack_->pod("shop/web"));
  EXPECT_EQ(pod["reason"], "invalid_annotation");
  const std::string named = std::string("Namespace/shop ") + kExcludePorts;
  EXPECT_EQ(pod["reason_detail"], named + "=7000-6000");
  const json told = explain(api_->v4, kEchoToo);
  EXPECT_EQ(told["reason"], "passthrough");
  EXPECT_NE(told["explanation"].get<std::string>().find(
                " A mistake makes the mode passthrough: " + named +
                " = 7000-6000: \"7000-6000\": the "
                "range runs backwards; "),
            std::string::npos)
      << told;
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "observed");
  EXPECT_EQ(role_of_connect(*control_, api_->v4, kEcho), "redirected") << "the neighbour";
  // Corrected, all is as it should be, and the problem is gone.
  ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", kExcludePorts, "7000"));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "redirect"));
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "none");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "redirected");
  ST_ASSERT_VALUE(auto status, sidetrack_->get("/v1/status"));
  EXPECT_TRUE(status["problems"].empty()) << status["problems"];
  EXPECT_EQ(sidetrack_->metric("sidetrack_policy_rejected"), 0.0);
  label(kMode, "passthrough");
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
  EXPECT_EQ(explain(api_->v4, kEchoToo)["explanation"],
            "The mode is passthrough: it goes directly and is only observed.");
}

TEST_F(RulesTest, misspelt_list_leaves_the_pod_alone_and_is_told) {
  enrol_neighbour();
  constexpr const char* kMisspelt = "sidetrack.io/exclude-outbound-port";
  annotate(kMisspelt, "7000");
  const json problem = problem_of("Namespace/shop", kMisspelt);
  EXPECT_NE(problem["reason"].get<std::string>().find(kExcludePorts), std::string::npos) << problem;
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
  ST_ASSERT_VALUE(auto pod, sidetrack_->pod("shop/web"));
  EXPECT_EQ(pod["reason"], "unknown_key");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "observed");
  EXPECT_EQ(role_of_connect(*control_, api_->v4, kEcho), "redirected") << "the neighbour";
}

TEST_F(RulesTest, bad_value_of_one_pod_does_not_touch_its_neighbour_in_the_namespace) {
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = "second",
                                     .netns_path = stranger_->netns.path(),
                                     .addresses = {stranger_->v4, stranger_->v6},
                                     .annotations = {{kExcludeCidrs, "10.0.0.0/33"}}}));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/second", "enrolled", "passthrough"));
  ST_ASSERT_VALUE(auto second, PodShell::start(place(*stranger_)));
  EXPECT_EQ(role_of_connect(*second, api_->v4, kEcho), "observed");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "redirected");
  EXPECT_EQ(problem_of("Pod/shop/second", kExcludeCidrs)["value"], "10.0.0.0/33");
}

TEST_F(RulesTest, pod_beats_namespace_and_excludes_add_up) {
  annotate(kExcludePorts, "7000");
  ST_ASSERT_OK(objects_->set_annotation(Kind::kPod, "shop/web", kExcludePorts, "7100"));
  ASSERT_TRUE(eventually(kPatience,
                         [&] { return explain(api_->v4, kEchoToo)["reason"] == "excluded_port"; }));
  EXPECT_EQ(explain(api_->v4, kEchoToo)["rule"]["object"], "Pod/shop/web");
  EXPECT_EQ(explain(api_->v4, kEcho)["rule"]["object"], "Namespace/shop");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEcho), "none");
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kEchoToo), "none");
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/web", kMode, "passthrough"));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "passthrough"));
  EXPECT_EQ(role_of_connect(*shell_, api_->v4, kHttps), "observed");
}

// TCP options of the policy, on the application's socket; excluded ones keep their own.
TEST_F(RulesTest, tcp_options_reach_enrolled_connections_only) {
  constexpr const char* kTcp = "sidetrack.io/tcp";
  const auto options_of = [&](std::uint16_t port) {
    std::string text;
    const auto connected = shell_->connect(api_->v4, port);
    EXPECT_TRUE(connected);
    const auto socket = take(*shell_, connected->id);
    EXPECT_TRUE(socket);
    constexpr std::array<std::pair<int, int>, 4> kOptions{{{SOL_SOCKET, SO_KEEPALIVE},
                                                           {IPPROTO_TCP, TCP_KEEPIDLE},
                                                           {IPPROTO_TCP, TCP_USER_TIMEOUT},
                                                           {IPPROTO_TCP, TCP_NODELAY}}};
    for (const auto& [level, option] : kOptions) {
      int value = 0;
      socklen_t size = sizeof(value);
      EXPECT_EQ(::getsockopt(socket->get(), level, option, &value, &size), 0);
      text += std::to_string(value) + " ";
    }
    std::array<char, 16> name{};
    socklen_t size = sizeof(name);
    EXPECT_EQ(::getsockopt(socket->get(), IPPROTO_TCP, TCP_CONGESTION, name.data(), &size), 0);
    EXPECT_TRUE(shell_->close(connected->id));
    return text + name.data();
  };
  // Open sockets of the pod, the engine's to the server among them.
  const auto has_reno_sockets = [&](std::size_t wanted_count) {
    const auto connected = shell_->connect(api_->v4, kEcho);
    EXPECT_TRUE(connected);
    const bool found = eventually(kPatience, [&] {
      const auto listed = run_command(
          {.arguments = {"ss", "-Htin", "state", "established"}, .netns_path = web_->netns.path()});
      std::size_t count = 0;
      for (auto at = listed ? listed->output.find(" reno ") : std::string::npos;
           at != std::string::npos; at = listed->output.find(" reno ", at + 1)) {
        ++count;
      }
      return count == wanted_count;
    });
    EXPECT_TRUE(shell_->close(connected->id));
    return found;
  };
  const std::string own = options_of(kEcho);
  const std::string wanted = "1 61 29000 1 reno";
  EXPECT_NE(own, wanted);
  annotate(kExcludePorts, std::to_string(kEchoToo));
  for (const char* const mode : {"redirect", "passthrough"}) {
    if (std::string(mode) != "redirect") {
      label(kMode, mode);
    }
    ST_ASSERT_OK(objects_->set_annotation(
        Kind::kNamespace, "shop", kTcp, "keepalive=61s,user-timeout=29s,congestion=reno,nodelay"));
    std::string seen;
    EXPECT_TRUE(eventually(kPatience, [&] { return (seen = options_of(kEcho)) == wanted; }))
        << seen;
    EXPECT_EQ(options_of(kEchoToo), own) << mode;
    EXPECT_TRUE(has_reno_sockets(mode == std::string("redirect") ? 2 : 1)) << mode;
    ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", kTcp, ""));
    EXPECT_TRUE(eventually(kPatience, [&] { return (seen = options_of(kEcho)) == own; })) << seen;
  }
}

}  // namespace
}  // namespace sidetrack::lab
