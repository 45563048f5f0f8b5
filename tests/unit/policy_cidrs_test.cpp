// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct GoodCidr {
  const char* name;
  const char* text;
  const char* cidr;
  std::uint8_t prefix;
  PortRange ports;
  bool warns = false;
};

class GoodCidrTest : public ::testing::TestWithParam<GoodCidr> {};

TEST_P(GoodCidrTest, parses) {
  const auto parsed = parse_cidrs(GetParam().text);
  ASSERT_TRUE(parsed) << parsed.error().message;
  ASSERT_EQ(parsed->rules.size(), 1U);
  const CidrRule& rule = parsed->rules[0];
  EXPECT_EQ(format_cidr(rule.address, rule.prefix), GetParam().cidr);
  EXPECT_EQ(rule.prefix, GetParam().prefix);
  EXPECT_EQ(rule.ports, GetParam().ports);
  EXPECT_EQ(!parsed->warnings.empty(), GetParam().warns);
}

INSTANTIATE_TEST_SUITE_P(
    PolicyCidrs, GoodCidrTest,
    ::testing::Values(GoodCidr{"v4", "10.9.0.0/16", "10.9.0.0/16", 112, {}},
                      GoodCidr{"v6", "fd00::/8", "fd00::/8", 8, {}},
                      GoodCidr{"bare_v4", "10.1.2.3", "10.1.2.3/32", 128, {}},
                      GoodCidr{"bare_v6", "2001:db8::1", "2001:db8::1/128", 128, {}},
                      GoodCidr{"v4_port", "10.0.0.0/8:443", "10.0.0.0/8", 104, {443, 443}},
                      GoodCidr{"v4_range", "10.0.0.0/8:8000-8100", "10.0.0.0/8", 104, {8000, 8100}},
                      GoodCidr{"bare_v4_port", "10.1.2.3:80", "10.1.2.3/32", 128, {80, 80}},
                      GoodCidr{"v6_port", "[fd00::/8]:443", "fd00::/8", 8, {443, 443}},
                      GoodCidr{"v6_range", "[fd00::/8]:8000-8100", "fd00::/8", 8, {8000, 8100}},
                      GoodCidr{"bare_v6_port", "[fd00::1]:80", "fd00::1/128", 128, {80, 80}},
                      GoodCidr{"v6_brackets_only", "[fd00::/8]", "fd00::/8", 8, {}},
                      GoodCidr{"v4_all", "0.0.0.0/0", "0.0.0.0/0", 96, {}},
                      GoodCidr{"v6_all", "::/0", "::/0", 0, {}},
                      GoodCidr{"mapped", "::ffff:10.0.0.0/104", "10.0.0.0/8", 104, {}},
                      GoodCidr{"white_space", "  10.9.0.0/16 ", "10.9.0.0/16", 112, {}},
                      GoodCidr{"v4_host_bits", "10.9.1.2/16", "10.9.0.0/16", 112, {}, true},
                      GoodCidr{"v6_host_bits", "fd00::1/8", "fd00::/8", 8, {}, true},
                      GoodCidr{"odd_length", "10.9.255.255/15", "10.8.0.0/15", 111, {}, true}),
    [](const auto& row) { return row.param.name; });

struct BadCidr {
  const char* name;
  const char* text;
  const char* says;
};

class BadCidrTest : public ::testing::TestWithParam<BadCidr> {};

TEST_P(BadCidrTest, names_the_item) {
  const auto parsed = parse_cidrs(GetParam().text);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(parsed.error().message, HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    PolicyCidrs, BadCidrTest,
    ::testing::Values(BadCidr{"v4_too_long", "10.0.0.0/33", "\"10.0.0.0/33\""},
                      BadCidr{"v6_too_long", "fd00::/129", "\"fd00::/129\""},
                      BadCidr{"no_length", "10.0.0.0/", "\"10.0.0.0/\""},
                      BadCidr{"negative", "10.0.0.0/-1", "\"10.0.0.0/-1\""},
                      BadCidr{"three_parts", "10.0.0/8", "\"10.0.0/8\""},
                      BadCidr{"octet", "10.0.0.256", "\"10.0.0.256\""},
                      BadCidr{"name", "10.0.0.1,db.example.com", "\"db.example.com\""},
                      BadCidr{"star", "*", "\"*\""},
                      BadCidr{"empty_item", "10.0.0.1,,10.0.0.2", "item 2 is empty"},
                      BadCidr{"trailing_comma", "10.0.0.1,", "item 2 is empty"},
                      BadCidr{"empty_port", "10.0.0.0/8:", "\"10.0.0.0/8:\""},
                      BadCidr{"port_zero", "10.0.0.0/8:0", "\"10.0.0.0/8:0\""},
                      BadCidr{"port_too_high", "10.0.0.0/8:65536", "\"10.0.0.0/8:65536\""},
                      BadCidr{"ports_backwards", "10.0.0.0/8:90-80", "runs backwards"},
                      BadCidr{"bracket_open", "[fd00::/8:443", "brackets"},
                      BadCidr{"bracket_v4", "[10.0.0.0/8]:443", "brackets"},
                      BadCidr{"bracket_trailing", "[fd00::/8]443", "\"[fd00::/8]443\""},
                      BadCidr{"bracket_then_length", "[fd00::]/8:443", "\"[fd00::]/8:443\""},
                      BadCidr{"zone", "fe80::1%eth0", "\"fe80::1%eth0\""},
                      BadCidr{"two_slashes", "10.0.0.0/8/8", "\"10.0.0.0/8/8\""}),
    [](const auto& row) { return row.param.name; });

TEST(PolicyCidrs, list_with_spaces_keeps_the_order_and_the_text) {
  const auto parsed = parse_cidrs("10.9.0.0/16, fd00::/8 ,10.1.2.3");
  ASSERT_TRUE(parsed);
  ASSERT_EQ(parsed->rules.size(), 3U);
  EXPECT_EQ(parsed->rules[0].text, "10.9.0.0/16");
  EXPECT_EQ(parsed->rules[1].text, "fd00::/8");
  EXPECT_EQ(parsed->rules[2].text, "10.1.2.3");
}

TEST(PolicyCidrs, empty_text_is_an_empty_list) {
  const auto parsed = parse_cidrs(" ");
  ASSERT_TRUE(parsed);
  EXPECT_THAT(parsed->rules, IsEmpty());
}

TEST(PolicyCidrs, repeats_are_dropped_but_not_other_ports_of_the_same_cidr) {
  const auto parsed = parse_cidrs("10.0.0.0/8:80,10.0.0.0/8:81,10.1.2.3/8:80");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->rules.size(), 2U);
}

TEST(PolicyCidrs, warning_names_item_and_what_is_used) {
  const auto parsed = parse_cidrs("10.9.1.2/16");
  ASSERT_TRUE(parsed);
  EXPECT_THAT(parsed->warnings,
              ElementsAre("\"10.9.1.2/16\": host bits are set; used as 10.9.0.0/16"));
}

TEST(PolicyAddress, zero_byte_does_not_hide_what_follows) {
  EXPECT_FALSE(parse_address(std::string_view("10.0.0.1\0x", 10)));
}

TEST(PolicyAddress, mapped_and_plain_v4_are_the_same) {
  const st_addr mapped = parse_address("::ffff:10.1.2.3").value();
  EXPECT_EQ(format_address(mapped), "10.1.2.3");
  EXPECT_EQ(format_endpoint(mapped, 80), "10.1.2.3:80");
  EXPECT_EQ(format_endpoint(parse_address("fd00:0::1").value(), 80), "[fd00::1]:80");
}

TEST(PolicyAddress, leading_zeros_are_refused) {
  EXPECT_FALSE(parse_address("010.0.0.1"));
}

TEST(PolicyAddress, v6_prefix_never_covers_a_v4_address) {
  const auto parsed = parse_cidrs("::/0,0.0.0.0/0");
  ASSERT_TRUE(parsed);
  EXPECT_FALSE(covers(parsed->rules[0], parse_address("10.0.0.1").value()));
  EXPECT_TRUE(covers(parsed->rules[0], parse_address("fd00::1").value()));
  EXPECT_TRUE(covers(parsed->rules[1], parse_address("10.0.0.1").value()));
  EXPECT_FALSE(covers(parsed->rules[1], parse_address("fd00::1").value()));
}

}  // namespace
}  // namespace sidetrack::policy
