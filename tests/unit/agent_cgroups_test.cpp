// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "agent/main/cgroups.h"

namespace sidetrack::agent {
namespace {

TEST(AgentCgroups, real_root_is_the_cgroup_with_the_first_id) {
  EXPECT_TRUE(check_root("/sys/fs/cgroup", 1));
}

TEST(AgentCgroups, root_of_a_cgroup_namespace_is_refused_as_configuration) {
  const auto refused = check_root("/sys/fs/cgroup", 4711);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
  EXPECT_NE(refused.error().message.find("/sys/fs/cgroup is not the root of cgroup2 (its id is "
                                         "4711, not 1)"),
            std::string::npos)
      << refused.error().message;
}

}  // namespace
}  // namespace sidetrack::agent
