// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct GoodPorts {
  const char* name;
  const char* text;
  std::vector<PortRange> ranges;
};

class GoodPortsTest : public ::testing::TestWithParam<GoodPorts> {};

TEST_P(GoodPortsTest, parse) {
  const auto ports = parse_ports(GetParam().text);
  ASSERT_TRUE(ports) << ports.error().message;
  EXPECT_EQ(ports->ranges(), GetParam().ranges);
}

INSTANTIATE_TEST_SUITE_P(
    PolicyPorts, GoodPortsTest,
    ::testing::Values(GoodPorts{"one", "8500", {{8500, 8500}}},
                      GoodPorts{"list_and_range", "8500,8600-8700", {{8500, 8500}, {8600, 8700}}},
                      GoodPorts{"lowest", "1", {{1, 1}}},
                      GoodPorts{"highest", "65535", {{65535, 65535}}},
                      GoodPorts{"range_of_one", "443-443", {{443, 443}}},
                      GoodPorts{"everything", "1-65535", {{1, 65535}}},
                      GoodPorts{"white_space", " 80 ,\t443\n", {{80, 80}, {443, 443}}},
                      GoodPorts{"repeats_and_overlap", "80,80,79-81", {{79, 81}}},
                      GoodPorts{"neighbours_join", "511,512,513", {{511, 513}}},
                      GoodPorts{"empty", "", {}}, GoodPorts{"only_space", "  ", {}}),
    [](const auto& row) { return row.param.name; });

struct BadPorts {
  const char* name;
  const char* text;
  const char* says;
};

class BadPortsTest : public ::testing::TestWithParam<BadPorts> {};

TEST_P(BadPortsTest, names_the_item) {
  const auto ports = parse_ports(GetParam().text);
  ASSERT_FALSE(ports);
  EXPECT_EQ(ports.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(ports.error().message, HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    PolicyPorts, BadPortsTest,
    ::testing::Values(BadPorts{"zero", "80,0", "\"0\""}, BadPorts{"zero_range", "0-10", "\"0-10\""},
                      BadPorts{"too_high", "80,65536", "\"65536\""},
                      BadPorts{"far_too_high", "99999999999999999999", "\"99999999999999999999\""},
                      BadPorts{"backwards", "8700-8600", "runs backwards"},
                      BadPorts{"word", "80,http", "\"http\""}, BadPorts{"negative", "-1", "\"-1\""},
                      BadPorts{"plus", "+80", "\"+80\""}, BadPorts{"open_range", "80-", "\"80-\""},
                      BadPorts{"two_dashes", "1-2-3", "\"1-2-3\""},
                      BadPorts{"space_inside", "80 81", "\"80 81\""},
                      BadPorts{"star", "*", "\"*\""}, BadPorts{"hexadecimal", "0x50", "\"0x50\""},
                      BadPorts{"empty_item", "80,,443", "item 2 is empty"},
                      BadPorts{"trailing_comma", "80,", "item 2 is empty"},
                      BadPorts{"leading_comma", " ,80", "item 1 is empty"},
                      BadPorts{"semicolon", "80;443", "\"80;443\""}),
    [](const auto& row) { return row.param.name; });

TEST(PolicyPorts, list_of_all_65535_ports_parses) {
  std::string text;
  for (int port = 65535; port >= 1; --port) {
    text += std::to_string(port) + (port == 1 ? "" : ",");
  }
  const auto ports = parse_ports(text);
  ASSERT_TRUE(ports);
  EXPECT_TRUE(ports->is_all());
  EXPECT_EQ(ports->count(), 65535U);
}

TEST(PolicyPorts, all_but_one_is_not_all) {
  const auto ports = parse_ports("1-4095,4097-65535");
  ASSERT_TRUE(ports);
  EXPECT_FALSE(ports->is_all());
  EXPECT_FALSE(ports->contains(4096));
  EXPECT_TRUE(ports->contains(4097));
  EXPECT_FALSE(ports->contains(0));
}

TEST(PolicyPorts, error_quotes_at_most_200_bytes) {
  const auto ports = parse_ports(std::string(100000, 'x'));
  ASSERT_FALSE(ports);
  EXPECT_LT(ports.error().message.size(), 300U);
}

TEST(PortSet, holds_pages_only_where_ports_are) {
  const auto ports = parse_ports("80,60000-60001");
  ASSERT_TRUE(ports);
  ASSERT_EQ(ports->pages().size(), 2U);
  EXPECT_EQ(ports->pages()[0].number, 0U);
  EXPECT_EQ(ports->pages()[1].number, 60000U / ST_PORTS_PER_PAGE);
}

TEST(PortSet, union_has_the_ports_of_both) {
  PortSet ports = parse_ports("80,9000").value();
  ports.add(parse_ports("443,9000-9001").value());
  EXPECT_THAT(ports.ranges(),
              ElementsAre(PortRange{80, 80}, PortRange{443, 443}, PortRange{9000, 9001}));
}

TEST(PortSet, is_equal_however_it_was_built) {
  EXPECT_EQ(parse_ports("1-3").value(), parse_ports("3,2,1").value());
  EXPECT_NE(parse_ports("1-3").value(), parse_ports("1-4").value());
}

}  // namespace
}  // namespace sidetrack::policy
