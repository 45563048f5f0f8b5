// SPDX-License-Identifier: Apache-2.0
// What becomes of intents that come again: those that stay cost nothing, every change is enacted.
#include <functional>

#include "agent/reconcile/intent_comparison.h"
#include "tests/unit/reconcile_fakes.h"

namespace sidetrack::reconcile::testing {
namespace {

std::shared_ptr<const policy::CompiledPolicy> excluding(std::uint32_t set) {
  auto compiled = std::make_shared<policy::CompiledPolicy>();
  compiled->exclude_ports = set;
  return compiled;
}

class Intents : public ReconcilerTest {
 protected:
  Intents() { netns.add("/netns/api", 7002); }
};

TEST_F(Intents, that_stay_are_not_carried_out_again) {
  const auto web = intent("web", "/netns/web");
  apply({web, intent("api", "/netns/api")});
  kernel.lookups.clear();
  apply({web, intent("api", "/netns/api", ST_MODE_PASSTHROUGH)});
  EXPECT_EQ(kernel.lookups[kWeb], 0);
  EXPECT_EQ(kernel.rows.at(7002).mode, ST_MODE_PASSTHROUGH);
}

TEST_F(Intents, that_stay_but_for_what_their_path_leads_to_are_carried_out) {
  enrol_web();
  netns.add("/netns/web", 7009);
  apply_web();
  EXPECT_FALSE(kernel.rows.contains(kWeb));
  EXPECT_TRUE(kernel.rows.contains(7009));
  EXPECT_TRUE(called("cut 7001"));
}

TEST_F(Intents, whose_paths_changed_hands_keep_to_their_own_namespaces) {
  apply({intent("api", "/netns/api"), intent("web", "/netns/web", ST_MODE_PASSTHROUGH)});
  netns.add("/netns/api", 7009);  // web's new one has the number that api's had
  netns.add("/netns/web", 7010);
  apply({intent("api", "/netns/web"), intent("web", "/netns/api", ST_MODE_PASSTHROUGH)});
  ASSERT_EQ(kernel.rows.size(), 2U);
  EXPECT_EQ(kernel.rows.at(7010).mode, ST_MODE_REDIRECT);
  EXPECT_EQ(kernel.rows.at(7009).mode, ST_MODE_PASSTHROUGH);
}

TEST_F(Intents, whose_last_step_failed_are_carried_out_again) {
  kernel.rows_full = true;
  apply_web();
  kernel.rows_full = false;
  apply_web();
  EXPECT_TRUE(kernel.rows.contains(kWeb));
}

TEST_F(Intents, that_are_wanted_again_are_carried_out) {
  apply_web();
  apply({});
  apply_web();
  EXPECT_EQ(kernel.rows.at(kWeb).mode, ST_MODE_REDIRECT);
}

struct Difference {
  const char* name;
  std::function<void(policy::PodIntent&)> make;
};
const Difference kDifferences[] = {
    {"state", [](auto& pod) { pod.state = policy::PodState::kSkipped; }},
    {"reason", [](auto& pod) { pod.reason = "host_network"; }},
    {"netns", [](auto& pod) { pod.netns_path = "/netns/api"; }},
    {"mode", [](auto& pod) { pod.mode = ST_MODE_PASSTHROUGH; }},
    {"fast_path", [](auto& pod) { pod.fast_path = ST_FAST_PATH_OFF; }},
    {"on_engine_loss", [](auto& pod) { pod.on_engine_loss = ST_ON_ENGINE_LOSS_CLOSED; }},
    {"ports", [](auto& pod) { pod.container_ports = {15900}; }},
    {"tuning", [](auto& pod) { pod.tuning.keepalive_s = 7; }},
    {"addresses", [](auto& pod) { pod.addresses.push_back(st_addr{{1}}); }},
    {"policy", [](auto& pod) { pod.compiled = excluding(ST_PORT_SET_ALL); }}};

class OneDifference : public Intents, public ::testing::WithParamInterface<Difference> {};

TEST_P(OneDifference, leads_to_what_it_would_lead_to_alone) {
  policy::PodIntent pod = intent("web", "/netns/web");
  apply({pod});
  GetParam().make(pod);
  apply({pod});
  Calls fresh_calls;
  FakeKernel fresh_kernel{fresh_calls};
  FakeEngines fresh_engines{fresh_calls};
  Reconciler fresh({.node_netns_cookie = kNodeCookie}, fresh_kernel, fresh_engines, netns);
  fresh.apply({pod}, now);
  now += 5s;  // what leaves an engine does so after a while
  reconciler.tick(now);
  ASSERT_EQ(kernel.rows.size(), fresh_kernel.rows.size());
  for (const auto& [cookie, row] : fresh_kernel.rows) {
    EXPECT_TRUE(same_row(kernel.rows.at(cookie), row)) << cookie;
    EXPECT_EQ(kernel.tunings.at(cookie).keepalive_s, fresh_kernel.tunings.at(cookie).keepalive_s);
  }
  ASSERT_EQ(engines.pods.size(), fresh_engines.pods.size());
  for (const auto& [cookie, spec] : fresh_engines.pods) {
    EXPECT_EQ(engines.pods.at(cookie).reserved_ports, spec.reserved_ports) << cookie;
  }
}

INSTANTIATE_TEST_SUITE_P(All, OneDifference, ::testing::ValuesIn(kDifferences),
                         [](const auto& one) { return std::string(one.param.name); });

TEST(IntentComparison, goes_by_what_a_policy_says) {
  IntentComparison comparison;
  policy::PodIntent before = intent("web", "/netns/web");
  policy::PodIntent now = before;
  before.compiled = excluding(ST_PORT_SET_ALL);
  now.compiled = excluding(ST_PORT_SET_ALL);
  const auto other = excluding(ST_PORT_SET_NONE);
  EXPECT_TRUE(comparison.same(before, now));
  EXPECT_TRUE(comparison.same(before, now)) << "the second time it is known";
  now.compiled = other;
  EXPECT_FALSE(comparison.same(before, now));
}

}  // namespace
}  // namespace sidetrack::reconcile::testing
