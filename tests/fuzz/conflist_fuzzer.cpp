// SPDX-License-Identifier: Apache-2.0
// Any bytes as a network configuration. What the editor accepts it changes in nothing but our
// entry, and taking that out gives back the bytes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "cni/install/conflist.h"

namespace {

using namespace sidetrack::cni::install;
using nlohmann::json;

void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void check_list(std::string_view text, const Entry& entry) {
  const auto edited = with_entry(text, entry);
  const auto stripped = without_entry(text, entry.type);
  if (!edited) {
    return;
  }
  require(stripped.has_value());
  require(mentions(text, entry.type) || *stripped == text);
  const auto facts = read_list(*edited);
  require(facts && facts->types.back() == entry.type && facts->types.size() > 1);
  const auto again = with_entry(*edited, entry);
  require(again && *again == *edited);
  const auto undone = without_entry(*edited, entry.type);
  require(undone && *undone == *stripped);

  // Another parser's word on the meaning; it refuses some numbers that we only copy.
  json before = json::parse(*stripped, nullptr, false);
  const json after = json::parse(*edited, nullptr, false);
  if (!before.is_discarded() && !after.is_discarded()) {
    before["plugins"].push_back(json::parse(entry_text(entry)));
    require(before == after);
  }
}

void check_single(std::string_view text, const Entry& entry) {
  const auto list = list_around(text, entry);
  if (list) {
    const auto facts = read_list(*list);
    require(facts && facts->types.size() == 2 && facts->types.back() == entry.type);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Entry entry{.own_namespace = "mesh"};
  check_list(text, entry);
  check_single(text, entry);
  return 0;
}
