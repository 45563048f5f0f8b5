// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using testing::address;
using testing::cidr_list;
using testing::port_list;

Rules sample() {
  Rules rules;
  rules.exclude_ports = {port_list("22, 8000-8100", {"Pod/shop/web", "pod-ports", ""}),
                         port_list("22,25", {"node", "node-ports", ""})};
  rules.exclude_cidrs = {cidr_list("10.0.0.0/8:443", {"Pod/shop/web", "pod-cidrs", ""}),
                         cidr_list("10.1.0.0/16,fd00::/8", {"Namespace/shop", "ns-cidrs", ""})};
  rules.include_ports = port_list("80,90", {"Namespace/shop", "ns-include", ""});
  rules.include_cidrs = cidr_list("192.168.0.0/16", {"Pod/shop/web", "pod-include", ""});
  return rules;
}

struct OriginRow {
  const char* name;
  st_reason reason;
  const char* host;
  std::uint16_t port;
  const char* expected;  // "object key value", empty = none
};

class OriginTest : public ::testing::TestWithParam<OriginRow> {};

TEST_P(OriginTest, names_the_item) {
  const OriginRow& row = GetParam();
  const auto origin = deciding_rule(sample(), row.reason, address(row.host), row.port);
  EXPECT_EQ(origin ? origin->object + " " + origin->key + " " + origin->value : "", row.expected);
}

INSTANTIATE_TEST_SUITE_P(
    PolicyOrigin, OriginTest,
    ::testing::Values(OriginRow{"port_nearest_level", ST_REASON_EXCLUDED_PORT, "1.1.1.1", 22,
                                "Pod/shop/web pod-ports 22"},
                      OriginRow{"port_range", ST_REASON_EXCLUDED_PORT, "1.1.1.1", 8050,
                                "Pod/shop/web pod-ports 8000-8100"},
                      OriginRow{"port_of_the_node", ST_REASON_EXCLUDED_PORT, "1.1.1.1", 25,
                                "node node-ports 25"},
                      OriginRow{"port_of_no_list", ST_REASON_EXCLUDED_PORT, "1.1.1.1", 26, ""},
                      OriginRow{"cidr_with_port", ST_REASON_EXCLUDED_CIDR, "10.2.0.1", 443,
                                "Pod/shop/web pod-cidrs 10.0.0.0/8:443"},
                      OriginRow{"cidr_longest", ST_REASON_EXCLUDED_CIDR, "10.1.0.1", 443,
                                "Namespace/shop ns-cidrs 10.1.0.0/16"},
                      OriginRow{"cidr_v6", ST_REASON_EXCLUDED_CIDR, "fd00::1", 1,
                                "Namespace/shop ns-cidrs fd00::/8"},
                      OriginRow{"cidr_other_port", ST_REASON_EXCLUDED_CIDR, "10.2.0.1", 80, ""},
                      OriginRow{"included_by_port", ST_REASON_REDIRECTED, "1.1.1.1", 90,
                                "Namespace/shop ns-include 90"},
                      OriginRow{"included_by_cidr", ST_REASON_REDIRECTED, "192.168.1.1", 1,
                                "Pod/shop/web pod-include 192.168.0.0/16"},
                      OriginRow{"not_included", ST_REASON_NOT_INCLUDED, "1.1.1.1", 1,
                                "Namespace/shop ns-include 80,90"},
                      OriginRow{"engine_down", ST_REASON_ENGINE_DOWN, "10.1.0.1", 443, ""},
                      OriginRow{"passthrough", ST_REASON_PASSTHROUGH, "10.1.0.1", 443, ""}),
    [](const auto& row) { return row.param.name; });

TEST(PolicyOrigin, not_included_names_the_cidr_list_when_it_is_the_only_one) {
  Rules rules;
  rules.include_cidrs = cidr_list("192.168.0.0/16", {"Pod/shop/web", "pod-include", ""});
  const auto origin = deciding_rule(rules, ST_REASON_NOT_INCLUDED, address("1.1.1.1"), 80);
  ASSERT_TRUE(origin);
  EXPECT_EQ(origin->key, "pod-include");
}

TEST(PolicyOrigin, redirected_without_an_include_list_has_no_rule) {
  EXPECT_FALSE(deciding_rule({}, ST_REASON_REDIRECTED, address("1.1.1.1"), 80));
}

}  // namespace
}  // namespace sidetrack::policy
