// SPDX-License-Identifier: Apache-2.0
// Typed, checked map calls over libbpf's low-level API. Internal to agent/dataplane.
#pragma once

#include <bpf/bpf.h>

#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

}  // namespace sidetrack::dataplane
