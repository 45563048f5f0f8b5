// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "agent/policy/policy.h"
#include "agent/policy/text.h"

namespace sidetrack::policy {
namespace {

// The item of the list that has the port; the list has already been parsed, so every item does.
std::optional<Origin> find_port_item(const PortList& list, std::uint16_t port) {
  if (!list.ports->contains(port)) {
    return std::nullopt;
  }
  Origin found = list.origin;
  const auto stop =
      for_each_item(list.origin.value, [&found, port](std::string_view item) -> Result<void> {
        const auto range = parse_port_range(item);
        if (range && range->contains(port)) {
          found.value = item;
          return make_error(ErrorCode::kExists, "found");
        }
        return {};
      });
  static_cast<void>(stop);
  return found;
}

// The longest prefix that matches, the nearer level if two are as long.
std::optional<Origin> find_cidr_item(const std::vector<const CidrList*>& lists,
                                     const st_addr& address, std::uint16_t port) {
  const CidrRule* longest = nullptr;
  const CidrList* its_list = nullptr;
  for (const CidrList* list : lists) {
    for (const CidrRule& rule : *list->rules) {
      if (rule.ports.contains(port) && covers(rule, address) &&
          (longest == nullptr || rule.prefix > longest->prefix)) {
        longest = &rule;
        its_list = list;
      }
    }
  }
  if (longest == nullptr) {
    return std::nullopt;
  }
  return Origin{its_list->origin.object, its_list->origin.key, longest->text};
}

std::optional<Origin> find_exclude(const Rules& rules, st_reason reason, const st_addr& address,
                                   std::uint16_t port) {
  if (reason == ST_REASON_EXCLUDED_PORT) {
    for (const PortList& list : rules.exclude_ports) {
      if (auto origin = find_port_item(list, port)) {
        return origin;
      }
    }
    return std::nullopt;
  }
  std::vector<const CidrList*> lists;
  for (const CidrList& list : rules.exclude_cidrs) {
    lists.push_back(&list);
  }
  return find_cidr_item(lists, address, port);
}

std::optional<Origin> find_include(const Rules& rules, const st_addr& address, std::uint16_t port) {
  if (rules.include_ports) {
    if (auto origin = find_port_item(*rules.include_ports, port)) {
      return origin;
    }
  }
  return rules.include_cidrs ? find_cidr_item({&*rules.include_cidrs}, address, port)
                             : std::nullopt;
}

}  // namespace

std::optional<Origin> deciding_rule(const Rules& rules, st_reason reason, const st_addr& address,
                                    std::uint16_t port) {
  if (reason == ST_REASON_EXCLUDED_PORT || reason == ST_REASON_EXCLUDED_CIDR) {
    return find_exclude(rules, reason, address, port);
  }
  if (reason == ST_REASON_REDIRECTED) {
    return find_include(rules, address, port);
  }
  if (reason == ST_REASON_NOT_INCLUDED) {
    if (rules.include_ports) {
      return rules.include_ports->origin;
    }
    return rules.include_cidrs ? std::optional(rules.include_cidrs->origin) : std::nullopt;
  }
  return std::nullopt;
}

Result<Rules> parse_node_rules(const NodeLists& lists, std::vector<std::string>& warnings) {
  Rules rules;
  const auto ports = [](const char* option, const std::string& text) -> Result<PortList> {
    auto parsed = parse_ports(text);
    if (!parsed) {
      return parsed.error().within(option);
    }
    return PortList{std::make_shared<const PortSet>(std::move(*parsed)), {"node", option, text}};
  };
  const auto cidrs = [&warnings](const char* option, const std::string& text) -> Result<CidrList> {
    auto parsed = parse_cidrs(text);
    if (!parsed) {
      return parsed.error().within(option);
    }
    for (const std::string& warning : parsed->warnings) {
      warnings.push_back(fmt::format("{}: {}", option, warning));
    }
    return CidrList{std::make_shared<const std::vector<CidrRule>>(std::move(parsed->rules)),
                    {"node", option, text}};
  };
  if (lists.exclude_ports) {
    auto list = ports("exclude-outbound-ports", *lists.exclude_ports);
    ST_TRY(list);
    rules.exclude_ports.push_back(std::move(*list));
  }
  if (lists.exclude_cidrs) {
    auto list = cidrs("exclude-outbound-cidrs", *lists.exclude_cidrs);
    ST_TRY(list);
    rules.exclude_cidrs.push_back(std::move(*list));
  }
  if (lists.include_ports) {
    auto list = ports("include-outbound-ports", *lists.include_ports);
    ST_TRY(list);
    rules.include_ports = std::move(*list);
  }
  if (lists.include_cidrs) {
    auto list = cidrs("include-outbound-cidrs", *lists.include_cidrs);
    ST_TRY(list);
    rules.include_cidrs = std::move(*list);
  }
  return rules;
}

}  // namespace sidetrack::policy
