// SPDX-License-Identifier: Apache-2.0
// ListSplitter: cuts a list answer, as it arrives in pieces, into the texts of its items, so that a
// list of any length needs the memory of one item. LineSplitter: the same for the lines of a watch.
// Pure; they look at brackets and quotes only, the parser judges what they give it.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "sidetrack/result.h"

namespace sidetrack::kube {

inline constexpr std::size_t kMaxItemBytes = 8UL * 1024 * 1024;
inline constexpr std::size_t kMaxEnvelopeBytes = 64UL * 1024;

class ListSplitter {
 public:
  // Gets the text of each element of the top-level member "items".
  using OnItem = std::function<void(std::string_view)>;
  explicit ListSplitter(OnItem on_item, std::size_t max_item_bytes = kMaxItemBytes)
      : on_item_(std::move(on_item)), max_item_bytes_(max_item_bytes) {}

  // kInvalid: this is no JSON object; kFull: what is outside the items is too long. Then feed no
  // more.
  Result<void> feed(std::string_view bytes);
  // The answer without its items ("items":[]), once it is whole. kInvalid: it is cut off.
  [[nodiscard]] Result<std::string> finish();
  // Items left out because they are longer than the limit.
  [[nodiscard]] std::size_t oversized() const { return oversized_; }

 private:
  [[nodiscard]] bool at_item() const { return in_items_ && depth_ >= 2; }
  Result<void> take(char c);
  Result<void> take_outside_string(char c);
  Result<void> append(char c);
  void end_item();

  OnItem on_item_;
  std::size_t max_item_bytes_;
  std::string envelope_;
  std::string item_;
  std::string last_string_;  // the last string at depth 1: before ":" it is a key
  std::size_t depth_ = 0;
  std::size_t oversized_ = 0;
  bool too_long_ = false;  // the present item
  bool in_string_ = false;
  bool escaped_ = false;
  bool after_colon_ = false;
  bool in_items_ = false;
  bool finished_ = false;
};

class LineSplitter {
 public:
  using OnLine = std::function<void(std::string_view)>;
  explicit LineSplitter(OnLine on_line, std::size_t max_line_bytes = kMaxItemBytes)
      : on_line_(std::move(on_line)), max_line_bytes_(max_line_bytes) {}

  // Gives each whole line without its end; empty lines are passed over. kFull: a line is longer
  // than the limit; feed no more.
  Result<void> feed(std::string_view bytes);
  // Whether there is a beginning of a line that never ended.
  [[nodiscard]] bool has_rest() const { return !line_.empty(); }
  // Forgets it: another answer begins.
  void reset() { line_.clear(); }

 private:
  OnLine on_line_;
  std::size_t max_line_bytes_;
  std::string line_;
};

}  // namespace sidetrack::kube
