// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/kernel_view.h"

#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "sidetrack/abi/fast.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::lab {
namespace {

std::uint64_t address_of(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer);
}

long call(int command, bpf_attr& attributes) {
  return ::syscall(SYS_bpf, command, &attributes, sizeof(attributes));
}

Result<UniqueFd> open_pin(const std::string& path) {
  bpf_attr attributes{};
  attributes.pathname = address_of(path.c_str());
  UniqueFd fd(static_cast<int>(call(BPF_OBJ_GET, attributes)));
  if (!fd.valid()) {
    return errno_error("open " + path, errno);
  }
  return fd;
}

template <typename Key>
bpf_attr element(const UniqueFd& map, const Key& key, void* value) {
  bpf_attr attributes{};
  attributes.map_fd = static_cast<std::uint32_t>(map.get());
  attributes.key = address_of(&key);
  attributes.value = address_of(value);
  return attributes;
}

Result<bpf_map_info> map_info(const UniqueFd& map) {
  bpf_map_info info{};
  bpf_attr attributes{};
  attributes.info.bpf_fd = static_cast<std::uint32_t>(map.get());
  attributes.info.info_len = sizeof(info);
  attributes.info.info = address_of(&info);
  if (call(BPF_OBJ_GET_INFO_BY_FD, attributes) != 0) {
    return errno_error("ask what a map is like", errno);
  }
  return info;
}

// Far above the cookies that a kernel has given to anything.
std::vector<char> odd_keys(std::uint32_t size, std::uint32_t count) {
  std::vector<char> keys(std::size_t{count} * size);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t odd = (std::uint64_t{1} << 48U) + i;
    std::memcpy(&keys[i * size], &odd, sizeof(odd));
  }
  return keys;
}

// "0-3" of /sys/devices/system/cpu/possible.
std::size_t possible_cpus() {
  std::ifstream file("/sys/devices/system/cpu/possible");
  std::size_t first = 0;
  std::size_t last = 0;
  char dash = 0;
  file >> first;
  return file >> dash >> last ? last + 1 : first + 1;
}

const char* const kReasons[] = {
#define ST_REASON(NAME, name, verdict) #name,
#include "sidetrack/abi/counters.def"
#undef ST_REASON
};

const char* const kFastReasons[] = {
#define ST_FAST(NAME, name, text) #name,
#include "sidetrack/abi/fast_path.def"
#undef ST_FAST
};

}  // namespace

Result<st_pod> KernelView::pod(std::uint64_t netns_cookie) const {
  auto map = open_pin(pin_dir_ + "/v1/maps/st_pods");
  ST_TRY(map);
  st_pod row{};
  bpf_attr attributes = element(*map, netns_cookie, &row);
  if (call(BPF_MAP_LOOKUP_ELEM, attributes) != 0) {
    return errno_error("look up the pod's row", errno);
  }
  return row;
}

Result<void> KernelView::delete_pod(std::uint64_t netns_cookie) const {
  auto map = open_pin(pin_dir_ + "/v1/maps/st_pods");
  ST_TRY(map);
  bpf_attr attributes = element(*map, netns_cookie, nullptr);
  if (call(BPF_MAP_DELETE_ELEM, attributes) != 0) {
    return errno_error("delete the pod's row", errno);
  }
  return {};
}

Result<void> KernelView::set_policy(std::uint64_t netns_cookie, std::uint32_t policy_id) const {
  auto row = pod(netns_cookie);
  ST_TRY(row);
  row->policy_id = policy_id;
  auto map = open_pin(pin_dir_ + "/v1/maps/st_pods");
  ST_TRY(map);
  bpf_attr attributes = element(*map, netns_cookie, &*row);
  attributes.flags = BPF_EXIST;
  if (call(BPF_MAP_UPDATE_ELEM, attributes) != 0) {
    return errno_error("write the pod's row", errno);
  }
  return {};
}

Result<void> KernelView::delete_observed(std::uint64_t socket_cookie) const {
  return delete_row("st_observed", socket_cookie);
}

Result<std::int64_t> KernelView::live(std::uint64_t netns_cookie) const {
  auto map = open_pin(pin_dir_ + "/v1/maps/st_pod_state");
  ST_TRY(map);
  st_pod_state state{};
  bpf_attr attributes = element(*map, netns_cookie, &state);
  if (call(BPF_MAP_LOOKUP_ELEM, attributes) != 0) {
    return errno_error("look up the pod's state", errno);
  }
  std::int64_t sum = 0;
  for (const st_budget& budget : state.budget) {
    sum += budget.live;
  }
  return sum;
}

Result<void> KernelView::add_records(std::uint64_t netns_cookie, std::int64_t change) const {
  auto map = open_pin(pin_dir_ + "/v1/maps/st_pod_state");
  ST_TRY(map);
  st_pod_state state{};
  bpf_attr attributes = element(*map, netns_cookie, &state);
  if (call(BPF_MAP_LOOKUP_ELEM, attributes) != 0) {
    return errno_error("look up the pod's state", errno);
  }
  state.records += change;
  attributes = element(*map, netns_cookie, &state);
  attributes.flags = BPF_EXIST;
  if (call(BPF_MAP_UPDATE_ELEM, attributes) != 0) {
    return errno_error("write the pod's state", errno);
  }
  return {};
}

Result<void> KernelView::add_records(std::int64_t change) const {
  auto map = open_pin(pin_dir_ + "/v1/maps/st_record_count");
  ST_TRY(map);
  const std::uint32_t cell = 0;
  std::int64_t count = 0;
  bpf_attr attributes = element(*map, cell, &count);
  if (call(BPF_MAP_LOOKUP_ELEM, attributes) != 0) {
    return errno_error("look up the count of records", errno);
  }
  count += change;
  attributes = element(*map, cell, &count);
  if (call(BPF_MAP_UPDATE_ELEM, attributes) != 0) {
    return errno_error("write the count of records", errno);
  }
  return {};
}

Result<void> KernelView::add_odd_rows(const std::string& map, std::uint32_t count) const {
  auto fd = open_pin(pin_dir_ + "/v1/maps/" + map);
  ST_TRY(fd);
  auto info = map_info(*fd);
  ST_TRY(info);
  const std::vector<char> keys = odd_keys(info->key_size, count);
  const std::vector<char> values(std::size_t{count} * info->value_size);
  bpf_attr attributes{};
  attributes.batch.map_fd = static_cast<std::uint32_t>(fd->get());
  attributes.batch.keys = address_of(keys.data());
  attributes.batch.values = address_of(values.data());
  attributes.batch.count = count;
  if (call(BPF_MAP_UPDATE_BATCH, attributes) != 0 && errno != E2BIG) {
    return errno_error("add rows to " + map, errno);
  }
  return {};
}

Result<void> KernelView::remove_odd_rows(const std::string& map) const {
  auto fd = open_pin(pin_dir_ + "/v1/maps/" + map);
  ST_TRY(fd);
  auto info = map_info(*fd);
  ST_TRY(info);
  const std::vector<char> keys = odd_keys(info->key_size, info->max_entries);
  for (std::uint32_t i = 0; i < info->max_entries; ++i) {
    bpf_attr attributes{};
    attributes.map_fd = static_cast<std::uint32_t>(fd->get());
    attributes.key = address_of(&keys[std::size_t{i} * info->key_size]);
    if (call(BPF_MAP_DELETE_ELEM, attributes) != 0 && errno != ENOENT) {
      return errno_error("remove rows from " + map, errno);
    }
  }
  return {};
}

Result<bool> KernelView::has_row(const std::string& map, std::uint64_t cookie) const {
  auto fd = open_pin(pin_dir_ + "/v1/maps/" + map);
  ST_TRY(fd);
  auto info = map_info(*fd);
  ST_TRY(info);
  std::vector<char> value(info->value_size);
  bpf_attr attributes = element(*fd, cookie, value.data());
  if (call(BPF_MAP_LOOKUP_ELEM, attributes) == 0) {
    return true;
  }
  return errno == ENOENT ? Result<bool>(false) : errno_error("look up a row of " + map, errno);
}

Result<void> KernelView::delete_row(const std::string& map, std::uint64_t cookie) const {
  auto fd = open_pin(pin_dir_ + "/v1/maps/" + map);
  ST_TRY(fd);
  bpf_attr attributes = element(*fd, cookie, nullptr);
  if (call(BPF_MAP_DELETE_ELEM, attributes) != 0) {
    return errno_error("delete a row of " + map, errno);
  }
  return {};
}

// Its first page says what was read, the second what was written.
Result<std::uint64_t> KernelView::waiting_in(const std::string& ring) const {
  auto fd = open_pin(pin_dir_ + "/v1/maps/" + ring);
  ST_TRY(fd);
  const long page = ::sysconf(_SC_PAGESIZE);
  const auto position = [&](long offset) -> std::uint64_t {
    void* memory =
        ::mmap(nullptr, static_cast<std::size_t>(page), PROT_READ, MAP_SHARED, fd->get(), offset);
    if (memory == MAP_FAILED) {
      return 0;
    }
    const std::uint64_t value = std::atomic_ref(*static_cast<std::uint64_t*>(memory)).load();
    ::munmap(memory, static_cast<std::size_t>(page));
    return value;
  };
  return position(page) - position(0);
}

Result<std::map<std::string, std::uint64_t>> KernelView::counted(std::uint32_t slot) const {
  auto map = open_pin(pin_dir_ + "/v1/maps/st_counters");
  ST_TRY(map);
  std::vector<st_counters> cells(possible_cpus());
  bpf_attr attributes = element(*map, slot, cells.data());
  if (call(BPF_MAP_LOOKUP_ELEM, attributes) != 0) {
    return errno_error("look up counters", errno);
  }
  std::map<std::string, std::uint64_t> sums;
  for (const st_counters& cell : cells) {
    for (std::size_t reason = 0; reason < ST_REASON_COUNT; ++reason) {
      if (cell.connections[reason] != 0) {
        sums[kReasons[reason]] += cell.connections[reason];
      }
    }
  }
  return sums;
}

Result<FastCounts> KernelView::fast_counts() const {
  auto map = open_pin(pin_dir_ + "/v1/maps/st_fast_counters");
  ST_TRY(map);
  const std::uint32_t cell = 0;
  std::vector<st_fast_counters> counters(possible_cpus());
  bpf_attr attributes = element(*map, cell, counters.data());
  if (call(BPF_MAP_LOOKUP_ELEM, attributes) != 0) {
    return errno_error("look up the counters of the fast path", errno);
  }
  FastCounts sums;
  for (const st_fast_counters& cpu : counters) {
    sums.messages += cpu.messages;
    sums.handoffs += cpu.handoffs;
    for (std::size_t reason = 0; reason < ST_FAST_COUNT; ++reason) {
      if (cpu.refused[reason] != 0) {
        sums.refused[kFastReasons[reason]] += cpu.refused[reason];
      }
    }
  }
  return sums;
}

Result<std::map<std::string, std::uint64_t>> KernelView::links() const {
  std::map<std::string, std::uint64_t> cgroups;
  std::error_code error;
  for (const auto& pin : std::filesystem::directory_iterator(pin_dir_ + "/v1/links", error)) {
    auto link = open_pin(pin.path().string());
    ST_TRY(link);
    bpf_link_info info{};
    bpf_attr attributes{};
    attributes.info.bpf_fd = static_cast<std::uint32_t>(link->get());
    attributes.info.info_len = sizeof(info);
    attributes.info.info = address_of(&info);
    if (call(BPF_OBJ_GET_INFO_BY_FD, attributes) != 0) {
      return errno_error("read link " + pin.path().string(), errno);
    }
    if (info.type == BPF_LINK_TYPE_CGROUP) {
      cgroups[pin.path().filename().string()] = info.cgroup.cgroup_id;
    }
  }
  if (error) {
    return errno_error("read " + pin_dir_ + "/v1/links", error.value());
  }
  return cgroups;
}

Result<void> KernelView::detach_link(const std::string& program) const {
  auto link = open_pin(pin_dir_ + "/v1/links/" + program);
  ST_TRY(link);
  bpf_attr attributes{};
  attributes.link_detach.link_fd = static_cast<std::uint32_t>(link->get());
  if (call(BPF_LINK_DETACH, attributes) != 0) {
    return errno_error("detach " + program, errno);
  }
  return {};
}

}  // namespace sidetrack::lab
