// SPDX-License-Identifier: Apache-2.0
// What the agent says to the API server and asks it besides watching, with the rights of
// docs/kubernetes-source.md.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "tests/kubernetes/source_faults_fixture.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using kube::Existence;
using nlohmann::json;

const std::string kDaemonSets = "/apis/apps/v1/namespaces/sidetrack/daemonsets";

class WritesTest : public FaultsTest {
 protected:
  std::optional<Existence> ask(SourceLoop& loop) {
    std::optional<Existence> answer;
    loop.source().ask_daemonset("sidetrack", [&](Existence existence) { answer = existence; });
    EXPECT_TRUE(loop.run_until([&] { return answer.has_value(); }));
    return answer;
  }
  // What is done at the API server is in force a little later.
  std::optional<Existence> ask_until(SourceLoop& loop, Existence wanted) {
    std::optional<Existence> answer;
    for (int i = 0; i < 500 && answer != wanted; ++i) {
      answer = ask(loop);
    }
    return answer;
  }
};

TEST_F(WritesTest, event_on_a_pod_is_there_once) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  const kube::ClusterEvent event{.kind = "Pod",
                                 .namespace_name = "shop",
                                 .name = "web-" + node_,
                                 .uid = "",
                                 .reason = "SidetrackNotCaptured",
                                 .message = "the pod's network namespace is not known"};
  loop.source().create_event(event);
  loop.source().create_event(event);
  ASSERT_TRUE(loop.run_until([&] { return loop.source().status().events.sent == 1; }))
      << loop.source().status().events.failed;
  EXPECT_EQ(loop.source().status().events.suppressed, 1U);
  std::string body;
  api_->call("GET",
             "/api/v1/namespaces/shop/events?fieldSelector=involvedObject.name%3Dweb-" + node_, "",
             &body);
  const json events = json::parse(body);
  ASSERT_EQ(events["items"].size(), 1U);
  EXPECT_EQ(events["items"][0]["reason"], "SidetrackNotCaptured");
  EXPECT_EQ(events["items"][0]["reportingInstance"], node_);
}

TEST_F(WritesTest, event_on_the_node_is_there) {
  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  loop.source().create_event({.kind = "Node",
                              .namespace_name = "",
                              .name = node_,
                              .uid = "",
                              .reason = "SidetrackDegraded",
                              .message = "m"});
  EXPECT_TRUE(loop.run_until([&] { return loop.source().status().events.sent == 1; }));
}

TEST_F(WritesTest, event_that_cannot_be_sent_is_counted_and_holds_up_nothing) {
  add_pod("web");
  SourceLoop loop(settings());
  ASSERT_TRUE(sees(loop, "web"));
  loop.source().create_event({.kind = "Pod",
                              .namespace_name = "no-such-namespace",
                              .name = "web",
                              .uid = "",
                              .reason = "r",
                              .message = "m"});
  ASSERT_TRUE(loop.run_until([&] { return loop.source().status().events.failed == 1; }));
  add_pod("next");
  EXPECT_TRUE(sees(loop, "next"));
}

TEST_F(WritesTest, our_daemonset_is_there_going_or_gone) {
  SourceLoop loop(settings());
  EXPECT_EQ(ask(loop), Existence::kGone);
  ST_ASSERT_OK(api_->make_daemonset("sidetrack", "sidetrack.io/test"));
  EXPECT_EQ(ask(loop), Existence::kExists);
  api_->call("DELETE", kDaemonSets + "/sidetrack");
  EXPECT_EQ(ask(loop), Existence::kGone) << "a finalizer keeps it, but it is being deleted";
  api_->call("PATCH", kDaemonSets + "/sidetrack", R"({"metadata":{"finalizers":null}})");
  EXPECT_EQ(ask(loop), Existence::kGone);
}

// What `helm uninstall` does: when we ask, we may no longer.
TEST_F(WritesTest, our_daemonset_is_gone_although_our_rights_went_with_it) {
  const std::string name = "mortal";
  ST_ASSERT_OK(api_->make_account(name));
  ST_ASSERT_OK(api_->make_daemonset(name));
  const auto token = api_->make_token(name);
  ASSERT_TRUE(token);
  write_token(*token);
  auto mine = settings();
  mine.namespace_name = name;
  mine.daemonset = "sidetrack";
  SourceLoop loop(mine);
  ASSERT_TRUE(loop.run_until_complete());
  EXPECT_EQ(ask(loop), Existence::kExists);

  api_->call("DELETE", "/apis/apps/v1/namespaces/" + name + "/daemonsets/sidetrack");
  api_->call("DELETE", "/apis/rbac.authorization.k8s.io/v1/namespaces/" + name +
                           "/rolebindings/sidetrack-" + name);
  auto other = mine;
  other.daemonset = "";
  SourceLoop blind(other);
  EXPECT_EQ(ask_until(blind, Existence::kNoRight), Existence::kNoRight) << "the rights are gone";
  EXPECT_EQ(ask(loop), Existence::kGone);
}

TEST_F(WritesTest, our_daemonset_is_unknown_where_nobody_can_say) {
  auto elsewhere = settings();
  elsewhere.namespace_name = "shop";  // we have no right to ask there
  SourceLoop forbidden(elsewhere);
  EXPECT_EQ(ask(forbidden), Existence::kNoRight);

  SourceLoop loop(settings());
  ASSERT_TRUE(loop.run_until_complete());
  proxy_->set_rule([](const HttpRequest&, Answer& answer) {
    return answer.respond(404, "<html>no such page</html>");
  });
  EXPECT_EQ(ask(loop), Existence::kUnknown) << "a 404 of something else";
  proxy_->set_rule([](const HttpRequest&, Answer& answer) {
    answer.hang();
    return true;
  });
  EXPECT_EQ(ask(loop), Existence::kUnknown);
  proxy_->server().go_away();
  EXPECT_EQ(ask(loop), Existence::kUnknown);
}

}  // namespace
}  // namespace sidetrack::tests
