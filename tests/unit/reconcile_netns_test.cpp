// SPDX-License-Identifier: Apache-2.0
// Namespaces that are missing, come late, go, change or are somebody else's.
#include "tests/unit/reconcile_fakes.h"

namespace sidetrack::reconcile::testing {
namespace {

class Netns : public ReconcilerTest {
 protected:
  // As many, each in a namespace of its own.
  void apply_pods(std::uint64_t count) {
    std::vector<policy::PodIntent> pods;
    for (std::uint64_t cookie = 8000; cookie < 8000 + count; ++cookie) {
      const std::string path = "/netns/" + std::to_string(cookie);
      netns.add(path, cookie);
      pods.push_back(intent(std::to_string(cookie), path));
    }
    apply(std::move(pods));
  }
};

TEST_F(Netns, that_appears_late_is_taken_up_in_the_next_tick) {
  netns.places.clear();
  apply_web();
  for (int i = 0; i < 300; ++i) {
    tick();  // by now the backoff is as long as it gets
  }
  netns.add("/netns/web", kWeb);
  tick();
  EXPECT_TRUE(kernel.rows.contains(kWeb));
}

TEST_F(Netns, that_is_missing_is_drift_and_found_when_it_appears) {
  apply({intent("late", "/netns/late", ST_MODE_PASSTHROUGH)});
  EXPECT_EQ(status("late").phase, PodPhase::kDrift);
  EXPECT_EQ(status("late").reason, "netns_unreachable");
  netns.add("/netns/late", 7005);
  tick(250ms);
  EXPECT_EQ(status("late").phase, PodPhase::kEnrolled);
  EXPECT_TRUE(kernel.rows.contains(7005));
}

TEST_F(Netns, that_goes_takes_row_listeners_and_connections_with_it) {
  enrol_web();
  netns.places.clear();
  tick();
  EXPECT_FALSE(kernel.rows.contains(kWeb));
  EXPECT_TRUE(called("cut 7001"));
  EXPECT_EQ(status("web").reason, "netns_unreachable");
}

TEST_F(Netns, that_goes_after_its_pod_is_forgotten) {
  enrol_web();
  apply({});
  netns.places.clear();
  tick();
  EXPECT_FALSE(kernel.rows.contains(kWeb));
  EXPECT_TRUE(called("cut 7001"));
  EXPECT_FALSE(reconciler.netns_path(kWeb).has_value());
}

TEST_F(Netns, that_another_one_replaced_is_seen_by_its_file) {
  enrol_web();
  netns.add("/netns/web", 7009);
  tick();
  EXPECT_FALSE(kernel.rows.contains(kWeb));
  EXPECT_TRUE(kernel.rows.contains(7009));
  EXPECT_TRUE(called("cut 7001"));
  EXPECT_TRUE(engines.pods.contains(7009));
}

TEST_F(Netns, that_changed_is_seen_without_a_look_into_the_others) {
  netns.add("/netns/other", 7005);
  apply({intent("web", "/netns/web"), intent("other", "/netns/other")});
  const int before = netns.inspections;
  netns.add("/netns/web", 7009);
  reconciler.on_netns_changed(now);
  EXPECT_EQ(netns.inspections, before + 1) << "that of the new one";
  EXPECT_FALSE(kernel.rows.contains(kWeb));
  EXPECT_TRUE(kernel.rows.contains(7009));
  EXPECT_TRUE(kernel.rows.contains(7005));
}

// More than have their turn within the age of a list, and a number of whole turns.
TEST_F(Netns, has_its_addresses_listed_again_however_many_there_are) {
  apply_pods(250);
  netns.lists_of.clear();
  for (int i = 0; i < 2 * (120 + 250); ++i) {
    tick();
  }
  EXPECT_EQ(netns.lists_of.size(), 250U);
  for (const auto& [path, lists] : netns.lists_of) {
    EXPECT_GE(lists, 2U) << path;
  }
}

TEST_F(Netns, has_its_addresses_listed_again_now_and_then_and_one_per_tick) {
  apply_pods(20);
  EXPECT_EQ(netns.lists, 20) << "at the first look";
  for (int i = 0; i < 100; ++i) {
    tick();
  }
  EXPECT_EQ(netns.lists, 20) << "for 25 s they are what they were";
  tick(5000ms);
  for (int i = 1; i < 20; ++i) {
    EXPECT_EQ(netns.lists, 20 + i);
    tick();
  }
  EXPECT_EQ(netns.lists, 40);
  tick();
  EXPECT_EQ(netns.lists, 40);
}

TEST_F(Netns, that_another_one_replaced_is_seen_by_its_cookie) {
  enrol_web();
  netns.places.at("/netns/web").facts.cookie = 7009;  // inode numbers are used again
  tick();
  EXPECT_FALSE(kernel.rows.contains(kWeb));
  EXPECT_TRUE(kernel.rows.contains(7009));
}

TEST_F(Netns, that_cannot_be_looked_into_for_a_moment_keeps_its_pod) {
  enrol_web();
  netns.inspect_error = true;  // too many open files, say: the file itself is still the same
  tick();
  EXPECT_TRUE(kernel.rows.contains(kWeb));
  EXPECT_FALSE(called("cut 7001"));
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
}

TEST_F(Netns, whose_port_range_changed_gets_another_budget) {
  enrol_web();
  netns.places.at("/netns/web").facts.port_high = 32768 + 99;
  tick();
  EXPECT_EQ(kernel.rows.at(kWeb).port_budget, 80U);
}

TEST_F(Netns, whose_lo_is_down_has_no_listeners_until_it_is_up) {
  netns.places.at("/netns/web").facts.loopback_up = false;
  apply_web();
  EXPECT_FALSE(engines.pods.contains(kWeb)) << "it could listen on one family only";
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "loopback_down");
  netns.places.at("/netns/web").facts.loopback_up = true;
  tick();
  EXPECT_TRUE(engines.pods.contains(kWeb));
  EXPECT_EQ(status("web").reason, "waiting_for_listeners");
  listen(kWeb, listeners(15900, 51));
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
}

TEST_F(Netns, whose_lo_goes_down_loses_its_listeners_and_no_connection) {
  enrol_web();
  netns.places.at("/netns/web").facts.loopback_up = false;
  tick();
  EXPECT_EQ(kernel.rows.at(kWeb).listeners_v4, 0);
  EXPECT_EQ(status("web").reason, "loopback_down");
  tick(5000ms);
  EXPECT_TRUE(called("leave 7001"));
  EXPECT_FALSE(called("cut 7001"));
}

TEST_F(Netns, whose_lo_is_down_for_a_moment_keeps_its_listeners) {
  enrol_web();
  netns.places.at("/netns/web").facts.loopback_up = false;
  tick();
  netns.places.at("/netns/web").facts.loopback_up = true;
  tick();
  tick(5000ms);
  EXPECT_FALSE(called("leave 7001"));
  EXPECT_EQ(status("web").phase, PodPhase::kEnrolled);
  EXPECT_EQ(kernel.rows.at(kWeb).port_v4_be[0], htons(15900));
}

TEST_F(Netns, whose_lo_is_down_is_looked_into_every_time) {
  std::vector<policy::PodIntent> pods{intent("web", "/netns/web")};
  for (std::uint64_t cookie = 8000; cookie < 8100; ++cookie) {
    const std::string name = "other-" + std::to_string(cookie);
    netns.add("/netns/" + name, cookie);
    pods.push_back(intent(name, "/netns/" + name));
  }
  netns.places.at("/netns/web").facts.loopback_up = false;
  apply(std::move(pods));
  tick();  // the turn of the first 25: "web" sorts last
  netns.places.at("/netns/web").facts.loopback_up = true;
  tick();
  EXPECT_TRUE(engines.pods.contains(kWeb));
}

TEST_F(Netns, of_the_node_is_never_enrolled) {
  netns.add("/netns/host", kNodeCookie);
  apply({intent("web", "/netns/host")});
  EXPECT_EQ(status("web").phase, PodPhase::kDrift);
  EXPECT_EQ(status("web").reason, "node_netns");
  EXPECT_TRUE(kernel.rows.empty());
}

TEST_F(Netns, of_two_pods_belongs_to_the_first) {
  apply({intent("api", "/netns/web", ST_MODE_PASSTHROUGH), intent("web", "/netns/web")});
  EXPECT_EQ(status("api").phase, PodPhase::kEnrolled);
  EXPECT_EQ(status("web").reason, "netns_shared");
  EXPECT_NE(status("web").detail.find("shop/api"), std::string::npos);
}

TEST_F(Netns, changes_hands_without_a_cut) {
  enrol_web();
  calls.clear();
  apply({intent("web2", "/netns/web")});
  EXPECT_EQ(status("web2").phase, PodPhase::kEnrolled);
  EXPECT_EQ(reconciler.owner(kWeb)->name, "web2");
  tick(5000ms);
  EXPECT_FALSE(called("cut 7001"));
  EXPECT_FALSE(called("leave 7001"));
  EXPECT_FALSE(called("erase 7001"));
}

TEST_F(Netns, that_changes_hands_to_a_pod_that_is_not_redirected_leaves_the_engine) {
  enrol_web();
  apply({intent("web2", "/netns/web", ST_MODE_PASSTHROUGH)});
  tick(5000ms);
  EXPECT_FALSE(engines.pods.contains(kWeb)) << "listeners would keep the namespace alive for ever";
  EXPECT_TRUE(called("leave 7001"));
}

TEST_F(Netns, of_a_long_lived_pod_keeps_its_name_however_many_others_come_and_go) {
  enrol_web();
  for (std::uint64_t cookie = 100000; cookie < 100000 + 17000; ++cookie) {
    netns.add("/netns/job", cookie);
    apply({intent("web", "/netns/web"), intent("job", "/netns/job", ST_MODE_PASSTHROUGH)});
    tick();
  }
  ASSERT_NE(reconciler.owner(kWeb), nullptr);
  EXPECT_EQ(reconciler.owner(kWeb)->name, "web");
  EXPECT_EQ(reconciler.owner(100000), nullptr) << "those that went are forgotten in time";
}

TEST_F(Netns, path_intent_and_cookie_are_found_by_name) {
  enrol_web();
  EXPECT_EQ(reconciler.netns_path(kWeb), "/netns/web");
  EXPECT_EQ(reconciler.cookie("shop", "web"), kWeb);
  EXPECT_EQ(reconciler.intent("shop", "web")->netns_path, "/netns/web");
  EXPECT_EQ(reconciler.intent("shop", "nobody"), nullptr);
  EXPECT_FALSE(reconciler.cookie("shop", "nobody").has_value());
}

}  // namespace
}  // namespace sidetrack::reconcile::testing
