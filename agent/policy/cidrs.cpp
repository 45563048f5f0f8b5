// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <set>
#include <tuple>

#include "agent/policy/policy.h"
#include "agent/policy/prefix.h"
#include "agent/policy/text.h"

namespace sidetrack::policy {
namespace {

// The two halves of an item: "10.0.0.0/8" and "443".
struct ItemParts {
  std::string_view cidr;
  std::optional<std::string_view> ports;
};

Result<ItemParts> split_item(std::string_view item) {
  if (item.front() == '[') {
    const auto close = item.find(']');
    if (close == std::string_view::npos ||
        item.substr(0, close).find(':') == std::string_view::npos) {
      return item_error(item, "brackets hold an IPv6 CIDR: [fd00::/8]:443");
    }
    const std::string_view rest = item.substr(close + 1);
    if (!rest.empty() && rest.front() != ':') {
      return item_error(item, "only :ports may follow the bracket: [fd00::/8]:443");
    }
    ItemParts parts{.cidr = item.substr(1, close - 1), .ports = {}};
    if (!rest.empty()) {
      parts.ports = rest.substr(1);
    }
    return parts;
  }
  const auto colon = item.find(':');
  if (colon == std::string_view::npos || item.find(':', colon + 1) != std::string_view::npos) {
    return ItemParts{.cidr = item, .ports = {}};
  }
  return ItemParts{.cidr = item.substr(0, colon), .ports = item.substr(colon + 1)};
}

// Fills address and prefix; returns whether host bits had to be cleared.
Result<bool> parse_prefix(std::string_view item, std::string_view text, CidrRule& rule) {
  const auto slash = text.find('/');
  const std::string_view host = text.substr(0, slash);
  const auto address = parse_address(host);
  if (!address) {
    return item_error(item, "not an IPv4 or IPv6 address or CIDR");
  }
  const bool v4_text = host.find(':') == std::string_view::npos;
  unsigned prefix = 128;
  if (slash != std::string_view::npos) {
    const unsigned longest = v4_text ? 32 : 128;
    const auto number = parse_number(text.substr(slash + 1), longest);
    if (!number) {
      return item_error(item,
                        fmt::format("the prefix length is not a number from 0 to {}", longest));
    }
    prefix = v4_text ? *number + 96 : *number;
  }
  rule.address = masked(*address, prefix);
  rule.prefix = static_cast<std::uint8_t>(prefix);
  return compare(rule.address, *address) != 0;
}

Result<void> parse_item(std::string_view item, ParsedCidrs& parsed) {
  const auto parts = split_item(item);
  if (!parts) {
    return parts.error();
  }
  CidrRule rule;
  rule.text = item;
  const auto cleared = parse_prefix(item, parts->cidr, rule);
  if (!cleared) {
    return cleared.error();
  }
  if (parts->ports) {
    const auto range = parse_port_range(*parts->ports);
    if (!range) {
      return item_error(item, fmt::format("behind the colon: {}", range.error().message));
    }
    rule.ports = *range;
  }
  if (*cleared) {
    parsed.warnings.push_back(fmt::format("\"{}\": host bits are set; used as {}", shorten(item),
                                          format_cidr(rule.address, rule.prefix)));
  }
  parsed.rules.push_back(std::move(rule));
  return {};
}

struct BySubject {
  bool operator()(const CidrRule* a, const CidrRule* b) const {
    const int order = compare(a->address, b->address);
    return order != 0 ? order < 0 : std::tie(a->prefix, a->ports) < std::tie(b->prefix, b->ports);
  }
};

void drop_repeats(std::vector<CidrRule>& rules) {
  std::set<const CidrRule*, BySubject> seen;
  std::vector<CidrRule> unique;
  for (const CidrRule& rule : rules) {
    if (seen.insert(&rule).second) {
      unique.push_back(rule);
    }
  }
  rules = std::move(unique);
}

}  // namespace

Result<ParsedCidrs> parse_cidrs(std::string_view text) {
  ParsedCidrs parsed;
  ST_TRY(
      for_each_item(text, [&parsed](std::string_view item) { return parse_item(item, parsed); }));
  drop_repeats(parsed.rules);
  return parsed;
}

bool covers(const CidrRule& rule, const st_addr& address) {
  return prefix_contains(rule.address, rule.prefix, address) &&
         is_v4_prefix(rule.address, rule.prefix) == (st_addr_is_v4(&address) != 0);
}

}  // namespace sidetrack::policy
