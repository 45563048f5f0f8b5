// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/impl.h"

namespace sidetrack::dataplane {

namespace {

void add(st_counters& sum, const st_counters& part) {
  for (std::size_t i = 0; i < std::size(sum.connections); ++i) {
    sum.connections[i] += part.connections[i];
  }
  for (std::size_t i = 0; i < ST_PATH_COUNT; ++i) {
    sum.bytes_out[i] += part.bytes_out[i];
    sum.bytes_in[i] += part.bytes_in[i];
  }
  sum.flows_dropped += part.flows_dropped;
  sum.records_full += part.records_full;
  sum.storage_full += part.storage_full;
  sum.record_fallback += part.record_fallback;
}

std::uint64_t count_keys(int fd, std::size_t key_bytes) {
  std::vector<unsigned char> key(key_bytes);
  std::vector<unsigned char> next(key_bytes);
  std::uint64_t count = 0;
  const void* previous = nullptr;
  while (bpf_map_get_next_key(fd, previous, next.data()) == 0) {
    ++count;
    key = next;
    previous = key.data();
  }
  return count;
}

}  // namespace

Result<void> Dataplane::set_config(const st_config& config) {
  st_config whole = config;
  impl_->fill_engines(whole);
  return map_update(impl_->map_fd("st_config"), "st_config", std::uint32_t{0}, whole);
}

Result<st_config> Dataplane::config() const {
  auto cell = map_lookup<st_config>(impl_->map_fd("st_config"), "st_config", std::uint32_t{0});
  ST_TRY(cell);
  return cell->value_or(st_config{});
}

int Dataplane::engines_fd() const {
  return impl_->map_fd("st_engines");
}

volatile st_engine* Dataplane::engine_cells() const {
  return static_cast<volatile st_engine*>(impl_->engine_memory);
}

Result<void> Dataplane::Impl::map_engines() {
  void* memory =
      mmap(nullptr, kEngineBytes, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd("st_engines"), 0);
  if (memory == MAP_FAILED) {
    return map_error("st_engines", "map into memory", errno);
  }
  engine_memory = memory;
  return {};
}

Result<std::uint32_t> Dataplane::acquire_policy(const std::string& fingerprint,
                                                const PolicyContent& content) {
  return impl_->policies.acquire(fingerprint, content, PolicyStore::Clock::now());
}

Result<bool> Dataplane::holds_policy(std::uint32_t id) const {
  return impl_->policies.holds(id);
}

void Dataplane::collect_policies() {
  auto rows = pods();
  if (!rows) {
    return;  // not knowing who uses what, nothing is deleted
  }
  std::set<std::uint32_t> used;
  for (const auto& [cookie, row] : *rows) {
    used.insert(row.policy_id);
  }
  impl_->policies.collect(used, PolicyStore::Clock::now());
}

Result<void> Dataplane::Impl::read_namespaces() {
  for (std::uint32_t slot = 1; slot < ST_MAX_NAMESPACES; ++slot) {
    auto row = map_lookup<st_namespace>(map_fd("st_namespaces"), "st_namespaces", slot);
    ST_TRY(row);
    if (*row && (*row)->name[0] != '\0') {
      (*row)->name[ST_NAMESPACE_NAME_BYTES - 1] = '\0';
      namespace_slots[static_cast<const char*>((*row)->name)] = slot;
    }
  }
  return {};
}

Result<std::uint32_t> Dataplane::namespace_slot(std::string_view name) {
  const std::string key(name);
  if (const auto known = impl_->namespace_slots.find(key); known != impl_->namespace_slots.end()) {
    return known->second;
  }
  // Slots are never given back: their counters would start from another namespace's.
  const auto slot = static_cast<std::uint32_t>(impl_->namespace_slots.size() + 1);
  if (slot >= ST_MAX_NAMESPACES || key.size() >= ST_NAMESPACE_NAME_BYTES) {
    return make_error(ErrorCode::kFull, "namespace " + key + ": no counter slot is free (" +
                                            std::to_string(ST_MAX_NAMESPACES - 1) +
                                            " in use); counted without a namespace");
  }
  st_namespace row{};
  std::memcpy(row.name, key.data(), key.size());
  ST_TRY(map_update(impl_->map_fd("st_namespaces"), "st_namespaces", slot, row));
  impl_->namespace_slots[key] = slot;
  return slot;
}

std::string Dataplane::namespace_of(std::uint32_t slot) const {
  const auto& slots = impl_->namespace_slots;
  const auto found =
      std::find_if(slots.begin(), slots.end(), [&](const auto& row) { return row.second == slot; });
  return found == slots.end() ? "" : found->first;
}

Result<void> Dataplane::upsert_pod(std::uint64_t netns_cookie, const st_pod& row) {
  const st_pod_state fresh{};
  const int state_fd = impl_->map_fd("st_pod_state");
  // The row names the state, so the state comes first; an existing one keeps its counts.
  if (auto made = map_update(state_fd, "st_pod_state", netns_cookie, fresh, BPF_NOEXIST);
      !made && made.error().error_number != EEXIST) {
    return made.error();
  }
  ST_TRY(map_update(impl_->map_fd("st_pods"), "st_pods", netns_cookie, row));
  impl_->raise_generation();
  return {};
}

Result<void> Dataplane::erase_pod(std::uint64_t netns_cookie) {
  ST_TRY(map_delete(impl_->map_fd("st_pods"), "st_pods", netns_cookie));
  impl_->raise_generation();
  ST_TRY(map_delete(impl_->map_fd("st_pod_state"), "st_pod_state", netns_cookie));
  ST_TRY(map_delete(impl_->map_fd("st_tunings"), "st_tunings", netns_cookie));
  return map_delete(impl_->map_fd("st_seen"), "st_seen", netns_cookie);
}

Result<std::optional<st_pod>> Dataplane::pod(std::uint64_t netns_cookie) const {
  return map_lookup<st_pod>(impl_->map_fd("st_pods"), "st_pods", netns_cookie);
}

Result<std::vector<std::pair<std::uint64_t, st_pod>>> Dataplane::pods() const {
  auto keys = map_keys<std::uint64_t>(impl_->map_fd("st_pods"), "st_pods");
  ST_TRY(keys);
  std::vector<std::pair<std::uint64_t, st_pod>> rows;
  rows.reserve(keys->size());
  for (const std::uint64_t cookie : *keys) {
    auto row = pod(cookie);
    ST_TRY(row);
    if (*row) {
      rows.emplace_back(cookie, **row);
    }
  }
  return rows;
}

Result<void> Dataplane::set_tuning(std::uint64_t netns_cookie, const st_tuning& tuning) {
  const int fd = impl_->map_fd("st_tunings");
  const st_tuning none{};
  if (std::memcmp(&tuning, &none, sizeof(none)) == 0) {
    return map_delete(fd, "st_tunings", netns_cookie);
  }
  ST_TRY(map_update(fd, "st_tunings", netns_cookie, tuning));
  impl_->skeleton->bss->st_has_tunings = 1;
  return {};
}

Result<st_tuning> Dataplane::tuning(std::uint64_t netns_cookie) const {
  const auto row = map_lookup<st_tuning>(impl_->map_fd("st_tunings"), "st_tunings", netns_cookie);
  ST_TRY(row);
  return row->value_or(st_tuning{});
}

Result<std::optional<st_pod_state>> Dataplane::pod_state(std::uint64_t netns_cookie) const {
  return map_lookup<st_pod_state>(impl_->map_fd("st_pod_state"), "st_pod_state", netns_cookie);
}

Result<std::vector<CounterRow>> Dataplane::counters() const {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) {
    return errno_error("count CPUs", -cpus);
  }
  std::map<std::uint32_t, std::string> slots{{0, ""}};
  for (const auto& [name, slot] : impl_->namespace_slots) {
    slots[slot] = name;
  }
  std::vector<CounterRow> rows;
  std::vector<st_counters> cells(static_cast<std::size_t>(cpus));
  for (const auto& [slot, name] : slots) {
    if (bpf_map_lookup_elem(impl_->map_fd("st_counters"), &slot, cells.data()) != 0) {
      return map_error("st_counters", "lookup", errno);
    }
    CounterRow row{.namespace_name = name};
    for (const st_counters& cell : cells) {
      add(row.counters, cell);
    }
    rows.push_back(row);
  }
  return rows;
}

std::vector<MapFill> Dataplane::fill() const {
  return {
      {"st_pods", count_keys(impl_->map_fd("st_pods"), sizeof(std::uint64_t)), ST_MAX_PODS},
      {"st_records", count_keys(impl_->map_fd("st_records"), sizeof(st_record_key)),
       ST_MAX_RECORDS},
      {"st_pairs", count_keys(impl_->map_fd("st_pairs"), sizeof(st_pair_key)), ST_MAX_PAIRS},
      {"st_namespaces", impl_->namespace_slots.size(), ST_MAX_NAMESPACES - 1},
      {"st_policies", impl_->policies.policies(), ST_MAX_POLICIES},
      {"st_cidrs", impl_->policies.cidrs(), ST_MAX_CIDRS},
      {"st_port_pages", impl_->policies.port_pages(), ST_MAX_PORT_PAGES},
  };
}

}  // namespace sidetrack::dataplane
