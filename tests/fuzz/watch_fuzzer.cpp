// SPDX-License-Identifier: Apache-2.0
// Any bytes as what the API server sends: a stream of watch events, a list, an error. The first
// byte says which resource, and in which pieces the rest arrives. What is taken for an object
// survives being kept on disk; pieces change nothing.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "agent/kube/list_splitter.h"
#include "agent/kube/object_store.h"
#include "agent/kube/object_text.h"
#include "agent/kube/watch_event.h"

namespace {

using namespace sidetrack;
using namespace sidetrack::kube;

void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void check_item(Resource resource, ItemResult item, ObjectStore& store) {
  require(!item.object || item.object->index() == index_of(resource));
  require(!item.object || !item.key.empty());
  if (!item.object) {
    return;
  }
  drop_unused(*item.object);
  ItemResult again = decode_item(resource, to_text(*item.object));
  require(again.object.has_value());
  drop_unused(*again.object);
  require(*again.object == *item.object);
  Change change{.kind = Change::Kind::kPut,
                .resource = resource,
                .key = item.key,
                .object = std::move(item.object),
                .version = item.resource_version,
                .problems = {}};
  store.apply(std::move(change));
}

template <typename Splitter>
Result<void> feed(Splitter& splitter, std::string_view bytes, std::size_t piece) {
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    ST_TRY(splitter.feed(bytes.substr(at, piece)));
  }
  return {};
}

std::vector<std::string> lines_of(std::string_view bytes, std::size_t piece) {
  std::vector<std::string> lines;
  LineSplitter splitter([&](std::string_view line) { lines.emplace_back(line); }, 4096);
  static_cast<void>(feed(splitter, bytes, piece));
  return lines;
}

std::vector<std::string> items_of(std::string_view bytes, std::size_t piece,
                                  std::string& envelope) {
  std::vector<std::string> items;
  ListSplitter splitter([&](std::string_view item) { items.emplace_back(item); }, 4096);
  if (feed(splitter, bytes, piece)) {
    envelope = splitter.finish().value_or("");
  }
  return items;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const auto resource = static_cast<Resource>(data[0] % kResourceCount);
  const std::size_t piece = 1 + data[0] / kResourceCount;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  ObjectSet objects;
  ObjectStore store(objects, 100);
  const auto lines = lines_of(bytes, piece);
  require(lines == lines_of(bytes, 4096));
  for (const std::string& line : lines) {
    check_item(resource, decode_watch_line(resource, line).item, store);
  }
  std::string envelope;
  std::string same_envelope;
  const auto items = items_of(bytes, piece, envelope);
  require(items == items_of(bytes, 4096, same_envelope) && envelope == same_envelope);
  for (const std::string& item : items) {
    check_item(resource, decode_item(resource, item), store);
  }
  static_cast<void>(decode_list_metadata(resource, envelope));
  require(decode_status(500, bytes).message.size() <= 256);
  return 0;
}
