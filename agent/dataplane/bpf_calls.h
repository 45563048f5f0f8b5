// SPDX-License-Identifier: Apache-2.0
// Typed, checked map calls over libbpf's low-level API. Internal to agent/dataplane.
#pragma once

#include <bpf/bpf.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sidetrack/abi/types.h"
#include "sidetrack/result.h"

namespace sidetrack::dataplane {

// "map st_pods: update: no space left on device"; ENOSPC and E2BIG become kFull.
inline Error map_error(std::string_view map, std::string_view call, int error_number) {
  return errno_error("map " + std::string(map) + ": " + std::string(call), error_number);
}

template <typename Key, typename Value>
Result<void> map_update(int fd, std::string_view map, const Key& key, const Value& value,
                        std::uint64_t flags = BPF_ANY) {
  if (bpf_map_update_elem(fd, &key, &value, flags) != 0) {
    return map_error(map, "update", errno);
  }
  return {};
}

// Nothing to delete is well.
template <typename Key>
Result<void> map_delete(int fd, std::string_view map, const Key& key) {
  if (bpf_map_delete_elem(fd, &key) != 0 && errno != ENOENT) {
    return map_error(map, "delete", errno);
  }
  return {};
}

template <typename Value, typename Key>
Result<std::optional<Value>> map_lookup(int fd, std::string_view map, const Key& key) {
  Value value{};
  if (bpf_map_lookup_elem(fd, &key, &value) == 0) {
    return std::optional<Value>(value);
  }
  if (errno == ENOENT) {
    return std::optional<Value>();
  }
  return map_error(map, "lookup", errno);
}

// All keys; a map that changes meanwhile may repeat or miss some.
template <typename Key>
Result<std::vector<Key>> map_keys(int fd, std::string_view map) {
  std::vector<Key> keys;
  Key key{};
  const void* previous = nullptr;
  Key next{};
  while (bpf_map_get_next_key(fd, previous, &next) == 0) {
    keys.push_back(next);
    key = next;
    previous = &key;
  }
  if (errno != ENOENT) {
    return map_error(map, "list", errno);
  }
  return keys;
}

// Calls `visit(key, value)` for each row of a hash map, in batches.
template <typename Key, typename Value, typename Visit>
Result<void> for_each_row(int map_fd, const char* name, const Visit& visit) {
  constexpr std::uint32_t kBatch = 4096;
  std::vector<Key> keys(kBatch);
  std::vector<Value> values(kBatch);
  std::uint32_t position = 0;
  for (bool first = true;; first = false) {
    std::uint32_t count = kBatch;
    const int error = bpf_map_lookup_batch(map_fd, first ? nullptr : &position, &position,
                                           keys.data(), values.data(), &count, nullptr);
    if (error != 0 && errno != ENOENT) {
      return map_error(name, "list", errno);
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      visit(keys[i], values[i]);
    }
    if (error != 0) {
      return {};  // ENOENT: that was all
    }
  }
}

// Runs a program that is attached to nothing on rows of its own, which follow a header of a packet
// and come back as the program left them. Returns what it returned.
template <typename Row>
Result<std::uint32_t> run_on(int program_fd, std::string_view name, std::span<Row> rows) {
  std::vector<unsigned char> packet(ST_RUN_HEADER_BYTES + rows.size_bytes());
  std::memcpy(packet.data() + ST_RUN_HEADER_BYTES, rows.data(), rows.size_bytes());
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(), .data_out = packet.data(),
              .data_size_in = static_cast<std::uint32_t>(packet.size()),
              .data_size_out = static_cast<std::uint32_t>(packet.size()), .repeat = 1);
  if (bpf_prog_test_run_opts(program_fd, &options) != 0) {
    return errno_error("run " + std::string(name), errno);
  }
  std::memcpy(rows.data(), packet.data() + ST_RUN_HEADER_BYTES, rows.size_bytes());
  return options.retval;
}

}  // namespace sidetrack::dataplane
