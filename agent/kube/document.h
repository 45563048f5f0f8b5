// SPDX-License-Identifier: Apache-2.0
// DocumentBuilder: from the events of a YAML or JSON parser to nlohmann::json, within bounds of
// depth, nodes and text that also count what aliases expand to; and LineTable, which says on which
// line of the text a JSON pointer is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "sidetrack/result.h"

namespace sidetrack::kube {

inline constexpr std::size_t kMaxFileBytes = 16 * 1024 * 1024;
inline constexpr std::size_t kMaxDocumentDepth = 64;
inline constexpr std::size_t kMaxFileNodes = 1'000'000;
inline constexpr std::size_t kMaxExpandedBytes = 2 * kMaxFileBytes;

// Of more than kMaxFileBytes. kFull.
[[nodiscard]] Error file_too_large();

class LineTable {
 public:
  // The line (from 1) of `pointer`, or of its nearest ancestor that is written in the text. 0 for
  // an empty table.
  [[nodiscard]] int find(std::string_view pointer) const;

  // Adds the member `key` of entry `parent`; entries come in the order of the text. Returns its
  // index.
  std::uint32_t add(std::uint32_t parent, std::string key, int line);

 private:
  struct Entry {
    std::uint32_t parent;
    int line;
    std::string key;
  };
  std::vector<Entry> entries_;  // a tree in text order, so that a subtree is one range
};

struct Document {
  nlohmann::json value;
  LineTable lines;
};

// One builder serves all documents of a file: the bounds are the file's. Anchors are the parser's
// numbers, 0 = none.
class DocumentBuilder {
 public:
  using Anchor = std::size_t;

  Result<void> begin(nlohmann::json::value_t container, int line, Anchor anchor = 0);
  Result<void> end();
  Result<void> key(std::string name, int line);
  Result<void> scalar(nlohmann::json value, int line, Anchor anchor = 0);
  Result<void> alias(Anchor anchor, int line);

  // True where the next scalar is the name of a member.
  [[nodiscard]] bool wants_key() const;
  // The scalar that `anchor` names, for an alias used as a key; null if it is none.
  [[nodiscard]] const std::string* anchored_text(Anchor anchor) const;
  // Gives the finished document away and makes ready for the next.
  [[nodiscard]] Document take();

 private:
  struct Size {
    std::size_t nodes = 0;
    std::size_t bytes = 0;
  };
  struct Anchored {
    nlohmann::json value;
    Size size;
  };
  struct Frame {
    nlohmann::json value;
    std::string key;
    int key_line = 0;
    bool has_key = false;
    std::uint32_t entry = 0;
    Anchor anchor = 0;
    Size before;  // what was used when it began
  };

  Result<void> charge(Size size);
  std::uint32_t note_line(int line);
  Result<void> attach(nlohmann::json value, Anchor anchor, Size size);

  std::vector<Frame> frames_;
  std::map<Anchor, Anchored> anchors_;
  Document document_;
  Size used_;
};

}  // namespace sidetrack::kube
