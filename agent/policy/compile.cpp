// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <unordered_map>

#include "agent/policy/policy.h"
#include "agent/policy/prefix.h"

namespace sidetrack::policy {
namespace {

// Gives equal sets one id, and remembers unions: thousands of prefixes below one parent ask for the
// same few.
class SetPool {
 public:
  std::uint32_t intern(PortSet set) {
    if (set.empty()) {
      return ST_PORT_SET_NONE;
    }
    if (set.is_all()) {
      return ST_PORT_SET_ALL;
    }
    const auto [at, is_new] =
        ids_.try_emplace(std::move(set), static_cast<std::uint32_t>(sets_.size() + 1));
    if (is_new) {
      sets_.push_back(&at->first);
      page_count_ += at->first.pages().size();
    }
    return at->second;
  }

  std::uint32_t unite(std::uint32_t a, std::uint32_t b) {
    if (a == b || b == ST_PORT_SET_NONE || a == ST_PORT_SET_ALL) {
      return a;
    }
    if (a == ST_PORT_SET_NONE || b == ST_PORT_SET_ALL) {
      return b;
    }
    const auto known = unions_.find(std::minmax(a, b));
    if (known != unions_.end()) {
      return known->second;
    }
    PortSet both = get(a);
    both.add(get(b));
    const std::uint32_t id = intern(std::move(both));
    unions_.emplace(std::minmax(a, b), id);
    return id;
  }

  [[nodiscard]] const PortSet& get(std::uint32_t id) const { return *sets_[id - 1]; }
  // Pages of everything interned, sets included that only served a union.
  [[nodiscard]] std::size_t page_count() const { return page_count_; }

 private:
  std::map<PortSet, std::uint32_t> ids_;
  std::vector<const PortSet*> sets_;  // keys of ids_, which do not move
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> unions_;
  std::size_t page_count_ = 0;
};

// One rule on its way to a row.
struct Entry {
  st_addr address{};
  unsigned prefix = 0;
  PortRange ports;
  bool include = false;
};

bool same_prefix(const Entry& a, const Entry& b) {
  return a.prefix == b.prefix && compare(a.address, b.address) == 0;
}

// A covering prefix comes before what it covers.
bool outer_first(const Entry& a, const Entry& b) {
  const int order = compare(a.address, b.address);
  return order != 0 ? order < 0 : a.prefix < b.prefix;
}

std::vector<Entry> sorted_entries(const Rules& rules) {
  std::vector<Entry> entries;
  const auto append = [&entries](const CidrList& list, bool include) {
    for (const CidrRule& rule : *list.rules) {
      entries.push_back({.address = rule.address,
                         .prefix = rule.prefix,
                         .ports = rule.ports,
                         .include = include});
    }
  };
  for (const CidrList& list : rules.exclude_cidrs) {
    append(list, false);
  }
  if (rules.include_cidrs) {
    append(*rules.include_cidrs, true);
  }
  std::sort(entries.begin(), entries.end(), outer_first);
  return entries;
}

constexpr st_addr kV4Network = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}};

// IPv4 addresses lie within ::/0 in the trie. A row without ports of its own keeps the rules of
// short IPv6 prefixes off them.
bool needs_v4_guard(const std::vector<Entry>& entries) {
  return std::any_of(entries.begin(), entries.end(), [](const Entry& entry) {
    return entry.prefix < 96 && prefix_contains(entry.address, entry.prefix, kV4Network);
  });
}

// Rows of one policy, built outer prefix first.
class RowBuilder {
 public:
  RowBuilder(SetPool& pool, std::vector<CompiledCidr>& rows) : pool_(pool), rows_(rows) {}

  void add(const st_addr& address, unsigned prefix, PortSet exclude, PortSet include) {
    while (!open_.empty() &&
           !prefix_contains(rows_[open_.back()].address, rows_[open_.back()].prefix, address)) {
      open_.pop_back();
    }
    CompiledCidr row{.address = address,
                     .prefix = static_cast<std::uint8_t>(prefix),
                     .exclude_set = pool_.intern(std::move(exclude)),
                     .include_set = pool_.intern(std::move(include))};
    if (!open_.empty()) {
      const CompiledCidr& parent = rows_[open_.back()];
      if (is_v4_prefix(parent.address, parent.prefix) == is_v4_prefix(address, prefix)) {
        row.exclude_set = pool_.unite(row.exclude_set, parent.exclude_set);
        row.include_set = pool_.unite(row.include_set, parent.include_set);
      }
    }
    open_.push_back(rows_.size());
    rows_.push_back(row);
  }

 private:
  SetPool& pool_;
  std::vector<CompiledCidr>& rows_;
  std::vector<std::size_t> open_;  // rows that cover the present one, outermost first
};

Result<void> check_limits(std::size_t cidrs, std::size_t pages) {
  if (cidrs > kMaxCidrs) {
    return make_error(
        ErrorCode::kFull,
        fmt::format("the merged lists hold {} different CIDRs, the limit is {}", cidrs, kMaxCidrs));
  }
  if (pages > ST_MAX_PORT_PAGES) {
    return make_error(
        ErrorCode::kFull,
        fmt::format("the ports of the merged CIDR lists fill more than {} pages of {} ports",
                    static_cast<int>(ST_MAX_PORT_PAGES), static_cast<int>(ST_PORTS_PER_PAGE)));
  }
  return {};
}

Result<void> build_rows(const Rules& rules, SetPool& pool, std::vector<CompiledCidr>& rows) {
  std::vector<Entry> entries = sorted_entries(rules);
  std::size_t cidrs = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    cidrs += i == 0 || !same_prefix(entries[i - 1], entries[i]) ? 1 : 0;
  }
  ST_TRY(check_limits(cidrs, 0));
  std::optional<Entry> guard;
  if (needs_v4_guard(entries)) {
    guard = Entry{.address = kV4Network, .prefix = 96, .ports = {}, .include = false};
  }
  RowBuilder builder(pool, rows);
  for (std::size_t i = 0; i < entries.size();) {
    const Entry first = entries[i];
    if (guard && !outer_first(first, *guard)) {
      if (!same_prefix(first, *guard)) {
        builder.add(guard->address, guard->prefix, {}, {});
      }
      guard.reset();
    }
    PortSet exclude;
    PortSet include;
    for (; i < entries.size() && same_prefix(first, entries[i]); ++i) {
      (entries[i].include ? include : exclude).add(entries[i].ports);
    }
    builder.add(first.address, first.prefix, std::move(exclude), std::move(include));
    ST_TRY(check_limits(cidrs, pool.page_count()));
  }
  if (guard) {
    builder.add(guard->address, guard->prefix, {}, {});
  }
  std::sort(rows.begin(), rows.end(), [](const CompiledCidr& a, const CompiledCidr& b) {
    return a.prefix != b.prefix ? a.prefix < b.prefix : compare(a.address, b.address) < 0;
  });
  return {};
}

// Numbers the sets that are in use in the order of their use, so that equal content looks equal.
void number_sets(const SetPool& pool, CompiledPolicy& policy) {
  std::unordered_map<std::uint32_t, std::uint32_t> numbers;
  const auto renumber = [&](std::uint32_t& id) {
    if (id == ST_PORT_SET_NONE || id == ST_PORT_SET_ALL) {
      return;
    }
    const auto [at, is_new] =
        numbers.try_emplace(id, static_cast<std::uint32_t>(policy.sets.size() + 1));
    if (is_new) {
      policy.sets.push_back(pool.get(id));
    }
    id = at->second;
  };
  renumber(policy.exclude_ports);
  renumber(policy.include_ports);
  for (CompiledCidr& row : policy.cidrs) {
    renumber(row.exclude_set);
    renumber(row.include_set);
  }
}

template <typename T>
void append_bytes(std::string& out, const T& value) {
  static_assert(std::has_unique_object_representations_v<T>);
  const char* const bytes = reinterpret_cast<const char*>(&value);
  out.append(bytes, sizeof value);
}

}  // namespace

Result<CompiledPolicy> compile(const Rules& rules) {
  CompiledPolicy policy;
  SetPool pool;
  PortSet exclude;
  for (const PortList& list : rules.exclude_ports) {
    exclude.add(*list.ports);
  }
  policy.exclude_ports = pool.intern(std::move(exclude));
  if (rules.include_ports) {
    policy.include_ports = pool.intern(*rules.include_ports->ports);
  }
  policy.has_include = rules.include_ports || rules.include_cidrs;
  ST_TRY(build_rows(rules, pool, policy.cidrs));
  number_sets(pool, policy);
  return policy;
}

bool CompiledPolicy::set_has(std::uint32_t set, std::uint16_t port) const {
  if (set == ST_PORT_SET_NONE || set == ST_PORT_SET_ALL) {
    return set == ST_PORT_SET_ALL;
  }
  return sets[set - 1].contains(port);
}

st_rules CompiledPolicy::look_up(const st_addr& address, std::uint16_t port) const {
  st_rules found{};
  found.excluded_port = set_has(exclude_ports, port) ? 1 : 0;
  found.has_include = has_include ? 1 : 0;
  found.included = set_has(include_ports, port) ? 1 : 0;
  const auto longest =
      std::find_if(cidrs.rbegin(), cidrs.rend(), [&address](const CompiledCidr& row) {
        return prefix_contains(row.address, row.prefix, address);
      });
  if (longest != cidrs.rend()) {
    found.excluded_cidr = set_has(longest->exclude_set, port) ? 1 : 0;
    found.included = found.included != 0 || set_has(longest->include_set, port) ? 1 : 0;
  }
  return found;
}

std::string CompiledPolicy::fingerprint() const {
  std::string bytes;
  bytes.reserve(32 + cidrs.size() * 25);
  append_bytes(bytes, has_include);
  append_bytes(bytes, exclude_ports);
  append_bytes(bytes, include_ports);
  append_bytes(bytes, static_cast<std::uint32_t>(cidrs.size()));
  for (const CompiledCidr& row : cidrs) {
    append_bytes(bytes, row.prefix);
    append_bytes(bytes, row.address);
    append_bytes(bytes, row.exclude_set);
    append_bytes(bytes, row.include_set);
  }
  for (const PortSet& set : sets) {
    append_bytes(bytes, static_cast<std::uint32_t>(set.pages().size()));
    for (const PortSet::Page& page : set.pages()) {
      append_bytes(bytes, page.number);
      append_bytes(bytes, page.bits);
    }
  }
  return bytes;
}

bool CompiledPolicy::empty() const {
  return exclude_ports == ST_PORT_SET_NONE && !has_include && cidrs.empty();
}

bool CompiledPolicy::operator==(const CompiledPolicy& other) const {
  return fingerprint() == other.fingerprint();
}

}  // namespace sidetrack::policy
