// SPDX-License-Identifier: Apache-2.0
// What is said of objects that cannot be read, by what is in force meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/main/held.h"

namespace sidetrack::agent {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

const kube::Problem kBroken{.object = "file /objects/a.yaml",
                            .key = "line 3",
                            .value = "x: [",
                            .reason = "no YAML",
                            .warning = false};

TEST(ObjectProblem, has_what_the_source_said) {
  const auto view = object_problem(kBroken, InForce::kObjects);
  EXPECT_EQ(view.severity, "error");
  EXPECT_EQ(view.object, "file /objects/a.yaml");
  EXPECT_EQ(view.key, "line 3");
  EXPECT_EQ(view.value, "x: [");
  EXPECT_EQ(view.reason, "no YAML");
  EXPECT_THAT(view.action, EndsWith("the reason says what is in use until then"));
  kube::Problem warning = kBroken;
  warning.warning = true;
  EXPECT_EQ(object_problem(warning, InForce::kObjects).severity, "warning");
}

TEST(ObjectProblem, is_of_an_object_but_for_the_way_to_them) {
  EXPECT_TRUE(object_problem(kBroken, InForce::kObjects).from_object);
  kube::Problem cache = kBroken;
  cache.of_source = true;
  EXPECT_FALSE(object_problem(cache, InForce::kObjects).from_object);
}

TEST(ObjectProblem, of_an_api_server_that_does_not_answer_says_where_its_address_is_set) {
  kube::Problem silent{.object = "API server https://10.96.0.1:443",
                       .key = "pods",
                       .value = "",
                       .reason = "not read yet",
                       .warning = true,
                       .of_source = true};
  const std::string action = object_problem(silent, InForce::kNothing).action;
  for (const char* place : {"--kubeconfig", "KUBERNETES_SERVICE_HOST", "kubernetes.apiServerHost",
                            "kubernetes.apiServerPort", "nothing is enforced"}) {
    EXPECT_THAT(action, HasSubstr(place));
  }
  EXPECT_THAT(action, Not(HasSubstr("correct the object")));
  silent.object = "cache";
  EXPECT_THAT(object_problem(silent, InForce::kNothing).action, Not(HasSubstr("correct the obj")));
}

TEST(ObjectProblem, of_an_agent_that_is_held_says_what_is_in_force) {
  for (const InForce held : {InForce::kEarlierAgent, InForce::kNothing}) {
    EXPECT_THAT(object_problem(kBroken, held).action, Not(HasSubstr("the reason says")));
  }
  EXPECT_THAT(object_problem(kBroken, InForce::kEarlierAgent).action,
              HasSubstr("what the earlier agent enforced stays in force, unchanged"));
  EXPECT_THAT(object_problem(kBroken, InForce::kNothing).action, HasSubstr("nothing is enforced"));
}

TEST(HeldReason, is_empty_where_the_objects_are_in_force) {
  EXPECT_EQ(held_reason(InForce::kObjects), "");
  EXPECT_THAT(held_reason(InForce::kEarlierAgent), EndsWith("stays in force, unchanged"));
  EXPECT_THAT(held_reason(InForce::kNothing), HasSubstr("nothing is enforced until"));
}

}  // namespace
}  // namespace sidetrack::agent
