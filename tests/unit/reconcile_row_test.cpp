// SPDX-License-Identifier: Apache-2.0
// From intent, facts and listeners to the row in st_pods.
#include <arpa/inet.h>

#include <ostream>

#include "tests/unit/reconcile_fakes.h"

namespace sidetrack::reconcile {
namespace {

using testing::intent;
using testing::listeners;

st_addr address(const std::string& text) {
  return policy::parse_address(text).value();
}

struct Input {
  policy::PodIntent pod = intent("web", "/netns/web");
  pods::NetnsFacts facts{
      .cookie = 7, .port_low = 32768, .port_high = 60999, .reuses_time_wait = true};
  EngineKind engine = EngineKind::kEmbedded;
  bool external_v4 = false, external_v6 = false;
  std::optional<EngineListeners> listening;
  std::optional<st_pod> in_kernel;

  [[nodiscard]] st_pod row() const {
    return build_row({.intent = pod,
                      .facts = facts,
                      .engine = engine,
                      .external_v4 = external_v4,
                      .external_v6 = external_v6,
                      .policy_id = 9,
                      .namespace_slot = 3,
                      .listeners = listening,
                      .in_kernel = in_kernel});
  }
};

TEST(PortBudget, is_four_fifths_of_the_range) {
  EXPECT_EQ(port_budget(32768, 60999), 22585U);
}
TEST(PortBudget, is_at_least_one) {
  EXPECT_EQ(port_budget(40000, 40000), 1U);
}
TEST(PortBudget, of_all_ports_does_not_overflow) {
  EXPECT_EQ(port_budget(0, 65535), 52428U);
}

TEST(BuildRow, carries_policy_slot_and_switches) {
  Input input;
  input.pod.on_engine_loss = ST_ON_ENGINE_LOSS_CLOSED;
  input.pod.fast_path = ST_FAST_PATH_NODE;
  const st_pod row = input.row();
  EXPECT_EQ(row.policy_id, 9U);
  EXPECT_EQ(row.namespace_slot, 3U);
  EXPECT_EQ(row.mode, ST_MODE_REDIRECT);
  EXPECT_EQ(row.on_engine_loss, ST_ON_ENGINE_LOSS_CLOSED);
  EXPECT_EQ(row.fast_path, ST_FAST_PATH_NODE);
  EXPECT_EQ(row.port_budget, 22585U);
}

TEST(BuildRow, counts_closed_ports_for_a_minute_where_time_wait_is_not_reused) {
  Input input;
  EXPECT_EQ(input.row().budget_shift, 30U);
  input.facts.reuses_time_wait = false;
  EXPECT_EQ(input.row().budget_shift, 36U);
}

TEST(BuildRow, takes_the_first_address_of_each_family_as_its_own) {
  Input input;
  input.pod.addresses = {address("fd00::5"), address("10.1.0.5"), address("10.1.0.6"),
                         address("fd00::6")};
  const st_addr v4 = address("10.1.0.5");
  const st_addr v6 = address("fd00::5");
  const st_pod row = input.row();
  EXPECT_TRUE(st_addr_equal(&row.own_v4, &v4));
  EXPECT_TRUE(st_addr_equal(&row.own_v6, &v6));
}

// Which of a pod's addresses its row has: of the object, of the default route, of the namespace.
struct OwnRow {
  const char* name;
  std::vector<std::string> of_object, of_routes, of_netns;
  std::string expected;
};
void PrintTo(const OwnRow& row, std::ostream* out) {
  *out << row.name;
}

class OwnAddress : public ::testing::TestWithParam<OwnRow> {};

TEST_P(OwnAddress, is_the_one_that_connections_leave_from) {
  const OwnRow& given = GetParam();
  Input input;
  input.pod.addresses.clear();
  for (const std::string& text : given.of_object) {
    input.pod.addresses.push_back(address(text));
  }
  input.facts.sources = given.of_routes;
  input.facts.addresses = given.of_netns;
  const st_pod row = input.row();
  const auto shown = [](const st_addr& own) {
    return st_addr_is_zero(&own) != 0 ? "-" : policy::format_address(own);
  };
  EXPECT_EQ(shown(row.own_v4) + " " + shown(row.own_v6), given.expected);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, OwnAddress,
    ::testing::Values(OwnRow{"none_anywhere", {}, {}, {}, "- -"},
                      OwnRow{"of_the_object", {"10.1.0.5", "fd00::5"}, {}, {}, "10.1.0.5 fd00::5"},
                      OwnRow{"of_the_netns_alone",
                             {},
                             {},
                             {"10.1.0.5", "10.1.0.6", "fd00::5", "fd00::6"},
                             "10.1.0.5 fd00::5"},
                      OwnRow{"of_the_object_before_the_netns",
                             {"10.1.0.6"},
                             {},
                             {"10.1.0.5", "10.1.0.6", "fd00::5"},
                             "10.1.0.6 fd00::5"},
                      OwnRow{"of_a_route_before_the_object",
                             {"10.1.0.6", "fd00::6"},
                             {"10.1.0.5", "fd00::5"},
                             {"10.1.0.6"},
                             "10.1.0.5 fd00::5"},
                      OwnRow{"of_the_route_that_agrees_with_the_object",
                             {"10.1.0.5", "fd00::5"},
                             {"10.1.0.5", "2001:db8::5", "fd00::5"},
                             {},
                             "10.1.0.5 fd00::5"}),
    [](const auto& one) { return std::string(one.param.name); });

TEST(BuildRow, of_a_skipped_pod_is_disabled_and_has_no_listeners) {
  Input input;
  input.pod.state = policy::PodState::kSkipped;
  input.listening = listeners(15900, 51);
  EXPECT_EQ(input.row().mode, ST_MODE_DISABLED);
  EXPECT_EQ(input.row().listeners_v4, 0);
}

TEST(BuildRow, of_a_passed_through_pod_has_no_listeners) {
  Input input;
  input.pod.mode = ST_MODE_PASSTHROUGH;
  input.listening = listeners(15900, 51);
  EXPECT_EQ(input.row().mode, ST_MODE_PASSTHROUGH);
  EXPECT_EQ(input.row().listeners_v4, 0);
}

TEST(BuildRow, without_an_engine_passes_redirected_pods_through) {
  Input input;
  input.engine = EngineKind::kNone;
  EXPECT_EQ(input.row().mode, ST_MODE_PASSTHROUGH);
}

TEST(BuildRow, names_what_the_engine_listens_on_in_network_order) {
  Input input;
  input.listening = listeners(15900, 51, 2);
  const st_pod row = input.row();
  EXPECT_EQ(row.engine_slot, 2);
  EXPECT_EQ(row.listeners_v4, 2);
  EXPECT_EQ(row.listeners_v6, 1);
  EXPECT_EQ(row.port_v4_be[0], htons(15900));
  EXPECT_EQ(row.port_v4_be[1], htons(15901));
  EXPECT_EQ(row.listener_cookie_v4[1], 52U);
  EXPECT_EQ(row.port_v6_be[0], htons(15900));
  EXPECT_EQ(row.listener_cookie_v6[0], 53U);
}

TEST(BuildRow, takes_no_more_listeners_than_the_row_holds) {
  Input input;
  input.listening = EngineListeners{.slot = 1, .listeners = {}};
  input.listening->listeners.v4.assign(20, {15900, 51});
  EXPECT_EQ(input.row().listeners_v4, ST_MAX_LISTENERS);
}

TEST(BuildRow, keeps_the_kernels_listeners_while_no_engine_has_answered) {
  Input before;
  before.listening = listeners(15900, 51, 2);
  Input input;
  input.in_kernel = before.row();
  EXPECT_TRUE(same_row(input.row(), before.row()));
}

TEST(BuildRow, does_not_bring_back_a_port_that_the_kernel_cleared) {
  Input input;
  input.listening = listeners(15900, 51);
  input.in_kernel = input.row();
  input.in_kernel->port_v4_be[1] = 0;
  input.in_kernel->port_v6_be[0] = 0;
  const st_pod row = input.row();
  EXPECT_EQ(row.port_v4_be[0], htons(15900));
  EXPECT_EQ(row.port_v4_be[1], 0);
  EXPECT_EQ(row.port_v6_be[0], 0);
  EXPECT_TRUE(has_lost_listener(row));
}

TEST(BuildRow, takes_a_new_listener_in_place_of_a_lost_one) {
  Input input;
  input.listening = listeners(15900, 51);
  input.in_kernel = input.row();
  input.in_kernel->port_v4_be[0] = 0;
  input.listening = listeners(15900, 61);
  EXPECT_EQ(input.row().port_v4_be[0], htons(15900));
  EXPECT_FALSE(has_lost_listener(input.row()));
}

TEST(BuildRow, of_an_external_engine_has_one_listener_per_family_it_serves) {
  Input input;
  input.engine = EngineKind::kExternal;
  input.external_v4 = true;
  const st_pod row = input.row();
  EXPECT_EQ(row.external, 1);
  EXPECT_EQ(row.engine_slot, ST_EXTERNAL_ENGINE_SLOT);
  EXPECT_EQ(row.listeners_v4, 1);
  EXPECT_EQ(row.listeners_v6, 0);
  EXPECT_TRUE(has_listener(row));
  EXPECT_FALSE(has_lost_listener(row));
}

TEST(BuildRow, takes_nothing_over_from_the_row_of_an_external_engine) {
  Input external;
  external.engine = EngineKind::kExternal;
  external.external_v4 = true;
  Input input;
  input.in_kernel = external.row();
  EXPECT_EQ(input.row().external, 0);
  EXPECT_EQ(input.row().listeners_v4, 0);
}

TEST(HasListener, is_false_when_all_are_lost) {
  Input input;
  EXPECT_FALSE(has_listener(input.row()));
  input.listening = listeners(15900, 51);
  st_pod row = input.row();
  EXPECT_TRUE(has_listener(row));
  row.port_v4_be[0] = row.port_v4_be[1] = row.port_v6_be[0] = 0;
  EXPECT_FALSE(has_listener(row));
}

}  // namespace
}  // namespace sidetrack::reconcile
