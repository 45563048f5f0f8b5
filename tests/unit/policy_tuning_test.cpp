// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "agent/policy/tuning.h"
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using testing::Cluster;

TEST(ParseTuning, reads_every_item) {
  const auto tuning = parse_tuning(" keepalive=60s, user-timeout = 1500ms,congestion=bbr ,nodelay");
  ASSERT_TRUE(tuning);
  EXPECT_EQ(tuning->keepalive_s, 60U);
  EXPECT_EQ(tuning->user_timeout_ms, 1500U);
  EXPECT_EQ(tuning->nodelay, 1U);
  EXPECT_EQ(std::string(tuning->congestion), "bbr");
  const auto longest = parse_tuning("keepalive=32767s,user-timeout=24h,congestion=a23456789012345");
  ASSERT_TRUE(longest);
  EXPECT_EQ(longest->keepalive_s, 32767U);
  EXPECT_EQ(longest->user_timeout_ms, 86'400'000U);
  EXPECT_EQ(std::string(longest->congestion), "a23456789012345");
  EXPECT_EQ(parse_tuning("keepalive=2m")->keepalive_s, 120U);
  EXPECT_EQ(parse_tuning("")->nodelay, 0U);
}

TEST(ParseTuning, names_the_item_that_is_wrong) {
  for (const char* const item :
       {"keepalive=60", "keepalive=0s", "keepalive=1500ms", "keepalive=32768s", "keepalive=-1s",
        "keepalive=s", "user-timeout=25h", "user-timeout=9999999999s", "nodelay=1", "keepalive",
        "congestion=", "congestion=a234567890123456", "congestion=b/b", "cork"}) {
    const auto tuning = parse_tuning(std::string("user-timeout=1s,").append(item));
    if (std::string(item).starts_with("user-timeout")) {
      EXPECT_FALSE(parse_tuning(item)) << item;
      continue;
    }
    ASSERT_FALSE(tuning) << item;
    EXPECT_NE(tuning.error().message.find(item), std::string::npos) << tuning.error().message;
  }
  EXPECT_FALSE(parse_tuning("nodelay,nodelay"));
}

TEST(PolicyTcp, that_of_the_pod_replaces_that_of_its_namespace) {
  Cluster cluster;
  cluster.shop().metadata.annotations = {{"sidetrack.io/tcp", "keepalive=60s"}};
  EXPECT_EQ(cluster.resolve().pods[0].tuning.keepalive_s, 60U);
  EXPECT_EQ(cluster.resolve().pods[0].tuning_origin.object, "Namespace/shop");
  cluster.web().metadata.annotations = {{"sidetrack.io/tcp", "nodelay"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].tuning.keepalive_s, 0U);
  EXPECT_EQ(resolution.pods[0].tuning.nodelay, 1U);
  EXPECT_EQ(resolution.pods[0].tuning_origin.object, "Pod/shop/web");
  EXPECT_TRUE(resolution.problems.empty());
}

}  // namespace
}  // namespace sidetrack::policy
