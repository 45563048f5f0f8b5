// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using ::testing::HasSubstr;

std::string read_and_written(const std::string& text) {
  const auto endpoint = parse_endpoint(text);
  return endpoint ? format_endpoint(endpoint->address, endpoint->port) : endpoint.error().message;
}

TEST(PolicyEndpoint, has_an_address_of_either_family_and_a_port) {
  EXPECT_EQ(read_and_written("10.1.2.3:80"), "10.1.2.3:80");
  EXPECT_EQ(read_and_written("[fd00::1]:65535"), "[fd00::1]:65535");
  EXPECT_EQ(read_and_written("[::1]:1"), "[::1]:1");
}

TEST(PolicyAddresses, that_are_none_are_left_out_of_a_list) {
  const auto read = parse_addresses({"10.1.2.3", "eth0", "", "fd00::1"});
  ASSERT_EQ(read.size(), 2U);
  EXPECT_EQ(format_address(read[0]), "10.1.2.3");
  EXPECT_EQ(format_address(read[1]), "fd00::1");
}

TEST(PolicyEndpoint, of_ipv6_without_brackets_is_refused_with_how_to_write_it) {
  EXPECT_THAT(read_and_written("::1:80"), HasSubstr("an IPv6 address needs brackets: [::1]:80"));
  EXPECT_THAT(read_and_written("fd00::1:8500"), HasSubstr("[fd00::1]:8500"));
}

TEST(PolicyEndpoint, says_what_is_meant) {
  for (const char* text : {"", ":", "10.1.2.3", "here:80", ":80", "[]:80", "[10.1.2.3]:80",
                           "[fd00::1:80", "10.1.2:80"}) {
    EXPECT_THAT(read_and_written(text), HasSubstr("ADDRESS:PORT is meant")) << text;
  }
  for (const char* text : {"10.1.2.3:0", "10.1.2.3:65536", "10.1.2.3:", "10.1.2.3:80x",
                           "10.1.2.3:-1", "[fd00::1]: 80"}) {
    EXPECT_THAT(read_and_written(text), HasSubstr("the port must be 1 to 65535")) << text;
  }
}

}  // namespace
}  // namespace sidetrack::policy
