// SPDX-License-Identifier: Apache-2.0
// Pods of which it is not known yet what the sentinel could not have seen.
#include "tests/unit/adopt_fixture.h"

namespace sidetrack::adopt {
namespace {

TEST_F(AdoptionTest, a_pod_that_could_not_be_looked_at_stays_on_tcp_until_it_was) {
  pods_.pods[kPodB].unseen = true;
  nominate(make_pair(1));
  tick();
  tick(kProbation);
  EXPECT_FALSE(is_in(1));
  EXPECT_EQ(adoption_.against(kPodA, kPodB, now_), ST_FAST_NO_SENTINEL);
  EXPECT_EQ(workloads_.demoted("shop/ReplicaSet/b"), ST_FAST_NONE) << "it did nothing";
  pods_.pods[kPodB].unseen = false;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_TRUE(is_in(1));
}

TEST_F(AdoptionTest, what_an_unseen_pod_had_adopted_leaves_and_may_come_back) {
  adopt(1);
  pods_.pods[kPodB].unseen = true;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_FALSE(is_in(1));
  pods_.pods[kPodB].unseen = false;
  adoption_.on_policy_changed(now_);
  tick();
  EXPECT_TRUE(is_in(1));
}

}  // namespace
}  // namespace sidetrack::adopt
