// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <random>

#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using testing::address;
using testing::cidr_list;
using ::testing::HasSubstr;
using testing::port_list;
using testing::verdict;

CompiledPolicy compiled(const Rules& rules) {
  return compile(rules).value();
}

TEST(PolicyCompile, no_rules_is_empty) {
  EXPECT_TRUE(compiled({}).empty());
  EXPECT_TRUE(compiled({.exclude_ports = {port_list("")},
                        .exclude_cidrs = {cidr_list("")},
                        .include_ports = {},
                        .include_cidrs = {}})
                  .empty());
}

TEST(PolicyCompile, empty_include_list_redirects_nothing) {
  Rules rules;
  rules.include_ports = port_list("");
  const CompiledPolicy policy = compiled(rules);
  EXPECT_FALSE(policy.empty());
  EXPECT_EQ(verdict(policy, "10.0.0.1", 80), ST_REASON_NOT_INCLUDED);
  EXPECT_EQ(verdict(policy, "fd00::1", 443), ST_REASON_NOT_INCLUDED);
}

TEST(PolicyCompile, ports_of_a_covering_prefix_are_folded_in) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list("10.0.0.0/8"), cidr_list("10.1.0.0/16:443")};
  const CompiledPolicy policy = compiled(rules);
  ASSERT_EQ(policy.cidrs.size(), 2U);
  EXPECT_EQ(policy.cidrs[1].prefix, 112);
  EXPECT_EQ(verdict(policy, "10.1.0.1", 80), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(policy, "10.1.0.1", 443), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(policy, "11.1.0.1", 443), ST_REASON_REDIRECTED);
}

TEST(PolicyCompile, fold_goes_down_only) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list("10.0.0.0/8:80,10.1.0.0/16:443,10.1.2.0/24:8080")};
  const CompiledPolicy policy = compiled(rules);
  EXPECT_EQ(verdict(policy, "10.1.2.3", 80), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(policy, "10.1.2.3", 443), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(policy, "10.1.2.3", 8080), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(policy, "10.1.9.9", 8080), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(policy, "10.9.9.9", 443), ST_REASON_REDIRECTED);
}

TEST(PolicyCompile, include_row_below_an_exclude_row_keeps_both) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list("10.0.0.0/8:22")};
  rules.include_cidrs = cidr_list("10.1.0.0/16");
  const CompiledPolicy policy = compiled(rules);
  EXPECT_EQ(verdict(policy, "10.1.0.1", 22), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(policy, "10.1.0.1", 80), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(policy, "10.2.0.1", 80), ST_REASON_NOT_INCLUDED);
}

TEST(PolicyCompile, exclude_row_below_an_include_row_keeps_both) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list("10.1.0.0/16:22")};
  rules.include_cidrs = cidr_list("10.0.0.0/8");
  const CompiledPolicy policy = compiled(rules);
  EXPECT_EQ(verdict(policy, "10.1.0.1", 22), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(policy, "10.1.0.1", 80), ST_REASON_REDIRECTED);
}

TEST(PolicyCompile, v6_default_route_leaves_v4_alone) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list("::/0,10.0.0.0/8:443")};
  const CompiledPolicy policy = compiled(rules);
  EXPECT_EQ(verdict(policy, "fd00::1", 80), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(policy, "192.168.0.1", 80), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(policy, "10.0.0.1", 80), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(policy, "10.0.0.1", 443), ST_REASON_EXCLUDED_CIDR);
}

TEST(PolicyCompile, v4_default_route_beside_the_v6_one) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list("[::/0]:80,0.0.0.0/0:443")};
  const CompiledPolicy policy = compiled(rules);
  EXPECT_EQ(policy.cidrs.size(), 2U);
  EXPECT_EQ(verdict(policy, "10.0.0.1", 80), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(policy, "10.0.0.1", 443), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(policy, "fd00::1", 443), ST_REASON_REDIRECTED);
}

TEST(PolicyCompile, no_ports_and_all_ports_need_no_set) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list("10.0.0.0/8,10.1.0.0/16:1-65535,10.2.0.0/16:443")};
  const CompiledPolicy policy = compiled(rules);
  EXPECT_TRUE(policy.sets.empty());
  for (const CompiledCidr& row : policy.cidrs) {
    EXPECT_EQ(row.exclude_set, ST_PORT_SET_ALL);
    EXPECT_EQ(row.include_set, ST_PORT_SET_NONE);
  }
}

TEST(PolicyCompile, rows_are_sorted_and_unique) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list("10.2.0.0/16,10.1.0.0/16:1,10.1.0.0/16:2,10.0.0.0/8"),
                         cidr_list("10.1.0.0/16:3")};
  const CompiledPolicy policy = compiled(rules);
  ASSERT_EQ(policy.cidrs.size(), 3U);
  EXPECT_EQ(format_cidr(policy.cidrs[0].address, policy.cidrs[0].prefix), "10.0.0.0/8");
  EXPECT_EQ(format_cidr(policy.cidrs[1].address, policy.cidrs[1].prefix), "10.1.0.0/16");
  EXPECT_EQ(format_cidr(policy.cidrs[2].address, policy.cidrs[2].prefix), "10.2.0.0/16");
}

TEST(PolicyCompile, equal_content_is_equal_whatever_the_origins_and_order) {
  Rules a;
  a.exclude_ports = {port_list("80", {"node", "k", ""}), port_list("443")};
  a.exclude_cidrs = {cidr_list("10.0.0.0/8:80,10.1.0.0/16:443")};
  Rules b;
  b.exclude_ports = {port_list("443,80", {"Pod/a/b", "k", ""})};
  b.exclude_cidrs = {cidr_list("10.1.0.0/16:80"), cidr_list("10.1.0.0/16:443,10.0.0.0/8:80")};
  EXPECT_EQ(compiled(a), compiled(b));
  EXPECT_EQ(compiled(a).fingerprint(), compiled(b).fingerprint());
}

TEST(PolicyCompile, different_content_has_different_fingerprints) {
  std::set<std::string> prints;
  Rules rules;
  prints.insert(compiled(rules).fingerprint());
  rules.include_ports = port_list("");
  prints.insert(compiled(rules).fingerprint());
  rules.include_ports = port_list("80");
  prints.insert(compiled(rules).fingerprint());
  rules.include_ports.reset();
  rules.exclude_ports = {port_list("80")};
  prints.insert(compiled(rules).fingerprint());
  rules.exclude_ports = {port_list("81")};
  prints.insert(compiled(rules).fingerprint());
  rules.exclude_cidrs = {cidr_list("10.0.0.0/8")};
  prints.insert(compiled(rules).fingerprint());
  rules.exclude_cidrs = {cidr_list("10.0.0.0/9")};
  prints.insert(compiled(rules).fingerprint());
  rules.exclude_cidrs = {cidr_list("10.0.0.0/9:81")};
  prints.insert(compiled(rules).fingerprint());
  EXPECT_EQ(prints.size(), 8U);
}

// Count CIDRs, each limited to one port of its own.
std::string many_cidrs(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += "10." + std::to_string(i / 250) + "." + std::to_string(i % 250) +
            ".0/24:" + std::to_string(i + 1) + ",";
  }
  text.pop_back();
  return text;
}

TEST(PolicyCompile, ten_thousand_cidrs_compile) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list(many_cidrs(9999) + ",10.0.0.0/8:80")};
  const auto policy = compile(rules);
  ASSERT_TRUE(policy) << policy.error().message;
  EXPECT_EQ(policy->cidrs.size(), kMaxCidrs);
  EXPECT_EQ(verdict(*policy, "10.3.5.1", 80), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(*policy, "10.3.5.1", 756), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(*policy, "10.3.5.1", 757), ST_REASON_REDIRECTED);
}

TEST(PolicyCompile, one_cidr_more_is_refused_whole) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list(many_cidrs(9999) + ",10.0.0.0/8:80")};
  rules.include_cidrs = cidr_list("192.168.0.0/16");
  const auto policy = compile(rules);
  ASSERT_FALSE(policy);
  EXPECT_EQ(policy.error().code, ErrorCode::kFull);
  EXPECT_THAT(policy.error().message, HasSubstr("10001"));
}

TEST(PolicyCompile, same_cidr_in_two_lists_counts_once) {
  Rules rules;
  rules.exclude_cidrs = {cidr_list(many_cidrs(10000)), cidr_list(many_cidrs(10000))};
  EXPECT_TRUE(compile(rules));
}

TEST(PolicyCompile, more_port_pages_than_the_kernel_has_are_refused) {
  std::string text = many_cidrs(9999);
  for (int port = 1; port < 65535; port += ST_PORTS_PER_PAGE) {
    text += ",10.0.0.0/8:" + std::to_string(port);
  }
  Rules rules;
  rules.exclude_cidrs = {cidr_list(text)};
  const auto policy = compile(rules);
  ASSERT_FALSE(policy);
  EXPECT_EQ(policy.error().code, ErrorCode::kFull);
  EXPECT_THAT(policy.error().message, HasSubstr("pages"));
}

TEST(PolicyCompile, one_policy_may_exclude_all_ports) {
  Rules rules;
  rules.exclude_ports = {port_list("1-65535")};
  EXPECT_EQ(compiled(rules).exclude_ports, ST_PORT_SET_ALL);
}

// What docs/policy.md says, said again without tries or folding.
st_rules naive(const Rules& rules, const st_addr& destination, std::uint16_t port) {
  st_rules found{};
  const auto hit = [&](const CidrList& list) {
    return std::any_of(list.rules->begin(), list.rules->end(), [&](const CidrRule& rule) {
      return covers(rule, destination) && rule.ports.contains(port);
    });
  };
  for (const PortList& list : rules.exclude_ports) {
    found.excluded_port = found.excluded_port != 0 || list.ports->contains(port) ? 1 : 0;
  }
  for (const CidrList& list : rules.exclude_cidrs) {
    found.excluded_cidr = found.excluded_cidr != 0 || hit(list) ? 1 : 0;
  }
  found.has_include = rules.include_ports || rules.include_cidrs ? 1 : 0;
  found.included = (rules.include_ports && rules.include_ports->ports->contains(port)) ||
                           (rules.include_cidrs && hit(*rules.include_cidrs))
                       ? 1
                       : 0;
  return found;
}

// Rules and destinations from a space so small that prefixes nest and hit.
class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) {}

  unsigned below(unsigned limit) {
    return std::uniform_int_distribution<unsigned>(0, limit - 1)(random_);
  }
  std::uint16_t port() { return static_cast<std::uint16_t>(1 + below(12) + 512 * below(2)); }
  std::string host() {
    if (below(2) == 0) {
      return fmt_v4();
    }
    return below(4) == 0 ? "::fffe:0:" + std::to_string(below(4))
                         : "fd00:" + std::to_string(below(3)) + "::" + std::to_string(below(4));
  }
  std::string cidr() {
    const std::string host_text = host();
    const bool v4 = host_text.find(':') == std::string::npos;
    const std::string text = host_text + "/" + std::to_string(below(v4 ? 33 : 129));
    if (below(3) == 0) {
      return text;
    }
    const unsigned low = port();
    const std::string ports =
        ":" + std::to_string(low) + (below(2) == 0 ? "" : "-" + std::to_string(low + below(600)));
    return v4 ? text + ports : "[" + text + "]" + ports;
  }
  std::string cidrs() {
    std::string text;
    for (unsigned i = below(12); i > 0; --i) {
      text += cidr() + (i == 1 ? "" : ",");
    }
    return text;
  }
  Rules rules() {
    Rules rules;
    for (unsigned i = below(3); i > 0; --i) {
      rules.exclude_cidrs.push_back(cidr_list(cidrs()));
      rules.exclude_ports.push_back(port_list(below(2) == 0 ? "" : std::to_string(port())));
    }
    if (below(2) == 0) {
      rules.include_cidrs = cidr_list(cidrs());
    }
    if (below(3) == 0) {
      rules.include_ports = port_list(std::to_string(port()));
    }
    return rules;
  }

 private:
  std::string fmt_v4() {
    return "10." + std::to_string(below(3)) + "." + std::to_string(below(3)) + "." +
           std::to_string(below(4));
  }
  std::mt19937 random_;
};

TEST(PolicyCompile, longest_match_agrees_with_a_naive_reading_of_random_rules) {
  Generator generator(20240607);
  int excluded = 0;
  int included = 0;
  for (int round = 0; round < 2000; ++round) {
    const Rules rules = generator.rules();
    const CompiledPolicy policy = compiled(rules);
    for (int i = 0; i < 60; ++i) {
      const std::string host = generator.host();
      const std::uint16_t port = generator.port();
      const st_rules expected = naive(rules, address(host), port);
      const st_rules found = policy.look_up(address(host), port);
      ASSERT_EQ(found.excluded_port, expected.excluded_port) << round << " " << host << " " << port;
      ASSERT_EQ(found.excluded_cidr, expected.excluded_cidr) << round << " " << host << " " << port;
      ASSERT_EQ(found.has_include, expected.has_include) << round << " " << host << " " << port;
      ASSERT_EQ(found.included, expected.included) << round << " " << host << " " << port;
      excluded += expected.excluded_cidr;
      included += expected.included;
    }
  }
  EXPECT_GT(excluded, 5000);
  EXPECT_GT(included, 5000);
}

}  // namespace
}  // namespace sidetrack::policy
