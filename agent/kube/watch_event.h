// SPDX-License-Identifier: Apache-2.0
// What the API server says: one line of a watch, one item of a list, a list's metadata, a Status.
// Pure, never throws; the text's length is bounded by whoever cut it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/kube/decode.h"
#include "agent/kube/resource.h"

namespace sidetrack::kube {

// A Status object, or what stands for one.
struct ApiStatus {
  int code = 0;
  std::string reason;              // "Expired"
  std::string message;             // cut to 200 bytes
  bool version_too_large = false;  // the server has not yet seen the resourceVersion asked for
  std::optional<std::chrono::seconds> retry_after;
};

struct ItemResult {
  std::string key;               // "shop/web-0" or "shop"; empty: not even that can be read
  std::string resource_version;  // may be empty
  std::optional<Object> object;  // none: cannot be used (an error in `issues`) or is of no use
  std::vector<Issue> issues;
  // The object is wrong: what is known of it stays.
  [[nodiscard]] bool failed() const;
};

// An item of a list of `resource`.
[[nodiscard]] ItemResult decode_item(Resource resource, std::string_view text);

struct WatchEvent {
  enum class Type : std::uint8_t {
    kPut,       // ADDED, MODIFIED: `item`
    kDeleted,   // `item.key`
    kBookmark,  // `item.resource_version`, `initial_end`
    kError,     // `status`
    kGarbage,   // not an event; `status.message` says why
  };
  Type type = Type::kGarbage;
  ItemResult item;
  bool initial_end = false;  // everything that there was at the start has been sent
  ApiStatus status;
};
[[nodiscard]] WatchEvent decode_watch_line(Resource resource, std::string_view line);

struct ListMetadata {
  std::string resource_version;
  std::string continue_token;
};
// Of a list's text without its items. nullopt: this is no list of `resource`.
[[nodiscard]] std::optional<ListMetadata> decode_list_metadata(Resource resource,
                                                               std::string_view envelope);

// Of the body of an answer with an error; what is no Status gets `code` and a part of the text.
[[nodiscard]] ApiStatus decode_status(int code, std::string_view body);

}  // namespace sidetrack::kube
