// SPDX-License-Identifier: Apache-2.0
// What one Namespace or Pod says about redirection, before levels are merged. Private to this room.
// Owns the rule "a value that does not parse is not used; the last good one is". Not thread-safe:
// one reader per resolve().
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/policy/policy.h"

namespace sidetrack::policy {

// A toggle and where it comes from.
template <typename T>
struct Setting {
  T value{};
  Origin origin;
  bool invalid = false;  // only for mode: the text is unknown and counts as passthrough
};

struct ObjectPolicy {
  std::optional<Setting<st_mode>> mode;
  std::optional<Setting<st_fast_path>> fast_path;
  std::optional<Setting<st_on_engine_loss>> on_engine_loss;
  std::optional<Setting<st_tuning>> tuning;
  Rules rules;
  std::optional<Origin> broken;  // the first list that does not parse and has no last good value
  std::optional<Origin> stray;   // the first unknown key that may be a list or a mode
};

class ObjectReader {
 public:
  // `last_good` is what the previous resolve() left; both references must outlive the reader.
  ObjectReader(const std::set<Compat>& compat, const LastGood& last_good)
      : compat_(compat), last_good_(last_good) {}

  // `object` as in Origin. Problems are appended.
  [[nodiscard]] ObjectPolicy read(const std::string& object, const kube::Metadata& metadata,
                                  std::vector<kube::Problem>& problems);

  // The values that parsed or are still in use, of every object read so far.
  [[nodiscard]] LastGood take_last_good() { return std::move(next_); }

 private:
  struct Context {
    const std::string& object;
    const kube::Metadata& metadata;
    std::vector<kube::Problem>& problems;
    ObjectPolicy& policy;
  };
  struct ParsedList {
    std::shared_ptr<const PortSet> ports;
    std::shared_ptr<const std::vector<CidrRule>> rules;
    std::vector<std::string> warnings;
    std::string error;  // not empty = does not parse
  };
  enum class ListKind { kPorts, kCidrs };
  struct ListKey;
  static const ListKey kListKeys[];

  void read_mode(const Context& context);
  template <typename T>
  [[nodiscard]] std::optional<Setting<T>> read_toggle(
      const Context& context, std::string_view key,
      const std::vector<std::pair<std::string_view, T>>& values);
  void read_lists(const Context& context);
  void read_list(const Context& context, const ListKey& list, const std::string& text);
  void read_tcp(const Context& context);

  [[nodiscard]] const ParsedList& parse(ListKind kind, const std::string& text);
  [[nodiscard]] std::optional<std::string> last_good(const std::string& name) const;

  const std::set<Compat>& compat_;
  const LastGood& last_good_;
  LastGood next_;
  std::map<std::pair<ListKind, std::string>, ParsedList>
      parsed_;  // by text: equal lists are parsed and stored once
};

}  // namespace sidetrack::policy
