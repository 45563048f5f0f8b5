// SPDX-License-Identifier: Apache-2.0
// Which ranges of a pod's local ports leave the engine too few to listen on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "agent/main/listener_ports.h"

namespace sidetrack::agent {
namespace {

using ::testing::HasSubstr;

reconcile::PodStatus pod_with(std::uint32_t low, std::uint32_t high,
                              const std::string& reserved = "", const std::string& name = "web") {
  reconcile::PodStatus pod;
  pod.intent.namespace_name = "shop";
  pod.intent.name = name;
  pod.intent.state = policy::PodState::kEnrol;
  pod.intent.mode = ST_MODE_REDIRECT;
  pod.facts = {.port_low = low, .port_high = high, .reserved_ports = reserved};
  return pod;
}

std::vector<admin::ProblemView> judge(const std::vector<reconcile::PodStatus>& pods) {
  return listener_port_problems(pods, {.low = 15900, .high = 15999, .per_pod = 4});
}

TEST(ListenerPorts, that_connections_may_all_take_are_told_with_both_ranges_and_what_to_do) {
  const auto problems = judge({pod_with(1024, 65535)});
  ASSERT_EQ(problems.size(), 1U);
  EXPECT_EQ(problems[0].severity, "warning");
  EXPECT_EQ(problems[0].object, "Pod/shop/web");
  EXPECT_EQ(problems[0].key, "ip_local_port_range");
  EXPECT_EQ(problems[0].value, "1024-65535");
  EXPECT_THAT(problems[0].reason,
              HasSubstr("take all of the engine's --listener-ports 15900-15999"));
  EXPECT_THAT(problems[0].action, HasSubstr("net.ipv4.ip_local_reserved_ports=15900-15999"));
}

TEST(ListenerPorts, of_the_defaults_are_not_told) {
  EXPECT_TRUE(judge({pod_with(32768, 60999)}).empty());
}

TEST(ListenerPorts, of_which_enough_for_two_engines_are_left_are_not_told) {
  EXPECT_TRUE(judge({pod_with(15908, 65535)}).empty());
  EXPECT_EQ(judge({pod_with(15907, 65535)}).size(), 1U);
  EXPECT_TRUE(judge({pod_with(1024, 15991)}).empty());
  EXPECT_EQ(judge({pod_with(1024, 15992)}).size(), 1U);
}

TEST(ListenerPorts, of_which_some_are_left_are_told_with_how_many) {
  const auto problems = judge({pod_with(15903, 65535), pod_with(15903, 65535, "15903-15904")});
  ASSERT_EQ(problems.size(), 2U);
  EXPECT_THAT(problems[0].reason, HasSubstr("take all but 3 of"));
  EXPECT_THAT(problems[0].reason, HasSubstr("fewer than its 4, or none"));
  EXPECT_THAT(problems[1].reason, HasSubstr("take all but 5 of"));
}

TEST(ListenerPorts, of_which_none_is_taken_are_not_told_however_few_they_are) {
  const auto told = [](const reconcile::PodStatus& pod) {
    return listener_port_problems({pod}, {.low = 15900, .high = 15903, .per_pod = 4}).size();
  };
  EXPECT_EQ(told(pod_with(32768, 60999)), 0U);
  EXPECT_EQ(told(pod_with(15903, 60999)), 1U);
}

TEST(ListenerPorts, that_are_reserved_are_not_told) {
  EXPECT_TRUE(judge({pod_with(1024, 65535, "8080,15900-15999")}).empty());
  EXPECT_TRUE(judge({pod_with(1024, 65535, "15992-15999")}).empty());
  EXPECT_EQ(judge({pod_with(1024, 65535, "15993-15999")}).size(), 1U);
}

TEST(ListenerPorts, that_are_reserved_beside_what_is_no_port_are_not_told) {
  EXPECT_TRUE(judge({pod_with(1024, 65535, "0-1023,15900-15999")}).empty());
  EXPECT_TRUE(judge({pod_with(1024, 65535, "0,15900-15999")}).empty());
  EXPECT_TRUE(judge({pod_with(1024, 65535, "0-15999")}).empty());
  EXPECT_TRUE(judge({pod_with(1024, 65535, "frob,15900-15999,7-1")}).empty());
  EXPECT_EQ(judge({pod_with(1024, 65535, "15900-159")}).size(), 1U);
}

TEST(ListenerPorts, that_the_pod_itself_declares_are_none_that_are_left) {
  auto pod = pod_with(15908, 65535);
  pod.intent.container_ports = {15907};
  EXPECT_EQ(judge({pod}).size(), 1U);
}

TEST(ListenerPorts, matter_to_redirected_pods_alone) {
  auto passed = pod_with(1024, 65535);
  passed.intent.mode = ST_MODE_PASSTHROUGH;
  auto skipped = pod_with(1024, 65535);
  skipped.intent.state = policy::PodState::kSkipped;
  auto unknown = pod_with(1024, 65535);
  unknown.facts.reset();
  EXPECT_TRUE(judge({passed, skipped, unknown}).empty());
}

TEST(ListenerPorts, of_many_pods_with_one_range_are_told_once) {
  const auto problems = judge(
      {pod_with(1024, 65535, "", "a"), pod_with(2048, 65535, "", "b"), pod_with(1024, 65535)});
  ASSERT_EQ(problems.size(), 2U);
  EXPECT_EQ(problems[0].object, "Pod/shop/a");
  EXPECT_THAT(problems[0].reason, HasSubstr("(so it is with 2 pods)"));
  EXPECT_EQ(problems[1].object, "Pod/shop/b");
}

TEST(ListenerPorts, are_no_value_of_an_object) {
  EXPECT_FALSE(judge({pod_with(1024, 65535)}).at(0).from_object);
}

class Watch : public ::testing::Test {
 protected:
  // The objects that are told; each pod's namespace is the cookie before it.
  std::vector<std::string> look(
      const std::vector<std::pair<std::uint64_t, reconcile::PodStatus>>& pods) {
    std::vector<reconcile::PodStatus> all;
    for (const auto& [cookie, pod] : pods) {
      all.push_back(pod);
      all.back().netns_cookie = cookie;
    }
    std::vector<std::string> objects;
    for (const kube::Problem& problem :
         watch_.look(all, {.low = 15900, .high = 15999, .per_pod = 4})) {
      EXPECT_THAT(problem.reason, HasSubstr("--listener-ports 15900-15999"));
      EXPECT_EQ(problem.key + " " + problem.value, "ip_local_port_range 1024-65535");
      EXPECT_TRUE(problem.warning);
      objects.push_back(problem.object);
    }
    return objects;
  }

  const reconcile::PodStatus a_ = pod_with(1024, 65535, "", "a");
  const reconcile::PodStatus b_ = pod_with(1024, 65535, "", "b");
  const reconcile::PodStatus good_ = pod_with(32768, 60999, "", "a");

 private:
  ListenerPortWatch watch_;
};

using Objects = std::vector<std::string>;

TEST_F(Watch, tells_each_pod_once) {
  EXPECT_EQ(look({{1, a_}}), Objects{"Pod/shop/a"});
  EXPECT_EQ(look({{1, a_}, {2, b_}}), Objects{"Pod/shop/b"});
  EXPECT_EQ(look({{1, a_}, {2, b_}}), Objects{});
}

TEST_F(Watch, tells_a_pod_again_that_was_right_in_between) {
  EXPECT_EQ(look({{1, a_}}), Objects{"Pod/shop/a"});
  EXPECT_EQ(look({{1, good_}}), Objects{});
  EXPECT_EQ(look({{1, a_}}), Objects{"Pod/shop/a"});
}

TEST_F(Watch, tells_another_pod_of_the_same_name) {
  EXPECT_EQ(look({{1, a_}}), Objects{"Pod/shop/a"});
  EXPECT_EQ(look({{7, a_}}), Objects{"Pod/shop/a"});
}

}  // namespace
}  // namespace sidetrack::agent
