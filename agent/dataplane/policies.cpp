// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/policies.h"

#include <algorithm>
#include <cstring>

#include "agent/dataplane/bpf_calls.h"

namespace sidetrack::dataplane {

Result<void> PolicyStore::open(const Maps& maps) {
  maps_ = maps;
  auto ids = map_keys<std::uint32_t>(maps_.policies, "st_policies");
  auto cidrs = map_keys<st_cidr_key>(maps_.cidrs, "st_cidrs");
  auto pages = map_keys<st_port_page_key>(maps_.port_pages, "st_port_pages");
  ST_TRY(ids);
  ST_TRY(cidrs);
  ST_TRY(pages);
  std::map<std::uint32_t, std::uint32_t> owner_of_set;
  for (const std::uint32_t id : *ids) {
    stored_[id];
    next_id_ = std::max(next_id_, id + 1);
    auto row = map_lookup<st_policy>(maps_.policies, "st_policies", id);
    ST_TRY(row);
    if (*row) {
      owner_of_set[(*row)->exclude_ports] = id;
      owner_of_set[(*row)->include_ports] = id;
    }
  }
  for (const st_cidr_key& key : *cidrs) {
    stored_[key.policy_id].cidrs.push_back(key);
    auto row = map_lookup<st_cidr>(maps_.cidrs, "st_cidrs", key);
    ST_TRY(row);
    if (*row) {
      owner_of_set[(*row)->exclude_ports] = key.policy_id;
      owner_of_set[(*row)->include_ports] = key.policy_id;
    }
  }
  for (const st_port_page_key& key : *pages) {
    next_set_ = std::max(next_set_, key.set_id + 1);
    // A set whose policy was never completed belongs to nobody, so it is collected.
    const auto owner = owner_of_set.find(key.set_id);
    stored_[owner == owner_of_set.end() ? kNoPolicy : owner->second].pages.push_back(key);
  }
  return {};
}

std::uint64_t PolicyStore::cidrs() const {
  std::uint64_t count = 0;
  for (const auto& [id, stored] : stored_) {
    count += stored.cidrs.size();
  }
  return count;
}

std::uint64_t PolicyStore::port_pages() const {
  std::uint64_t count = 0;
  for (const auto& [id, stored] : stored_) {
    count += stored.pages.size();
  }
  return count;
}

Result<std::uint32_t> PolicyStore::acquire(const std::string& fingerprint,
                                           const PolicyContent& content, Clock::time_point now) {
  if (const auto known = by_fingerprint_.find(fingerprint); known != by_fingerprint_.end()) {
    const auto held = holds(known->second);
    ST_TRY(held);
    if (*held) {
      stored_[known->second].unused_since = now;  // until a row names it
      return known->second;
    }
    // Somebody changed it: never rewritten, as a connect() may be reading it.
    stored_[known->second].fingerprint.clear();
    by_fingerprint_.erase(known);
  }
  const std::uint32_t id = next_id_;
  Stored stored;
  stored.fingerprint = fingerprint;
  stored.unused_since = now;
  if (auto written = write(id, content, stored); !written) {
    erase(id, stored);
    return written.error();
  }
  ++next_id_;
  stored_[id] = std::move(stored);
  by_fingerprint_[fingerprint] = id;
  return id;
}

Result<bool> PolicyStore::holds(std::uint32_t id) const {
  const auto row = map_lookup<st_policy>(maps_.policies, "st_policies", id);
  ST_TRY(row);
  const auto written = stored_.find(id);
  return *row && (written == stored_.end() || !written->second.row ||
                  std::memcmp(&**row, &*written->second.row, sizeof(st_policy)) == 0);
}

Result<std::uint32_t> PolicyStore::write_set(const PortPages& pages, Stored& stored) {
  const std::uint32_t set_id = next_set_++;
  for (const PortPage& page : pages) {
    const st_port_page_key key{.set_id = set_id, .page = page.number};
    ST_TRY(map_update(maps_.port_pages, "st_port_pages", key, page.bits, BPF_NOEXIST));
    stored.pages.push_back(key);
  }
  return set_id;
}

Result<void> PolicyStore::write(std::uint32_t id, const PolicyContent& content, Stored& stored) {
  std::vector<std::uint32_t> set_ids;
  set_ids.reserve(content.sets.size());
  for (const PortPages& pages : content.sets) {
    auto set_id = write_set(pages, stored);
    ST_TRY(set_id);
    set_ids.push_back(*set_id);
  }
  const auto kernel_id = [&set_ids](std::uint32_t set) {
    return set == ST_PORT_SET_NONE || set == ST_PORT_SET_ALL ? set : set_ids.at(set - 1);
  };
  for (const PolicyCidr& cidr : content.cidrs) {
    const st_cidr_key key{.prefix_bits = 32U + cidr.prefix, .policy_id = id, .addr = cidr.address};
    const st_cidr row{.exclude_ports = kernel_id(cidr.exclude_set),
                      .include_ports = kernel_id(cidr.include_set)};
    ST_TRY(map_update(maps_.cidrs, "st_cidrs", key, row));
    stored.cidrs.push_back(key);
  }
  st_policy row{};
  row.exclude_ports = kernel_id(content.exclude_set);
  row.include_ports = kernel_id(content.include_set);
  row.has_include = content.has_include ? 1 : 0;
  row.has_cidrs = content.cidrs.empty() ? 0 : 1;
  stored.row = row;
  return map_update(maps_.policies, "st_policies", id, row, BPF_NOEXIST);
}

void PolicyStore::erase(std::uint32_t id, const Stored& stored) {
  // A row that cannot be deleted now is found again by the next agent's open().
  (void)map_delete(maps_.policies, "st_policies", id);
  for (const st_cidr_key& key : stored.cidrs) {
    (void)map_delete(maps_.cidrs, "st_cidrs", key);
  }
  for (const st_port_page_key& key : stored.pages) {
    (void)map_delete(maps_.port_pages, "st_port_pages", key);
  }
}

void PolicyStore::collect(const std::set<std::uint32_t>& used, Clock::time_point now) {
  for (auto it = stored_.begin(); it != stored_.end();) {
    std::optional<Clock::time_point>& since = it->second.unused_since;
    if (it->first != kNoPolicy && used.contains(it->first)) {
      since.reset();
    } else if (!since) {
      since = now;
    }
    if (!since || now - *since <= kGrace) {
      ++it;
      continue;
    }
    erase(it->first, it->second);
    by_fingerprint_.erase(it->second.fingerprint);
    it = stored_.erase(it);
  }
}

}  // namespace sidetrack::dataplane
