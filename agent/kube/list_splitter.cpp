// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/list_splitter.h"

#include <fmt/format.h>

#include <utility>

namespace sidetrack::kube {
namespace {

constexpr std::size_t kMaxKeyBytes = 64;
constexpr std::size_t kKeptCapacity = 256UL * 1024;  // what a buffer may keep between items

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

}  // namespace

Result<void> ListSplitter::feed(std::string_view bytes) {
  for (const char c : bytes) {
    ST_TRY(take(c));
  }
  return {};
}

Result<void> ListSplitter::take(char c) {
  if (finished_) {
    return is_space(c) ? Result<void>()
                       : make_error(ErrorCode::kInvalid, "there is text after the list");
  }
  if (!in_string_) {
    return take_outside_string(c);
  }
  if (escaped_) {
    escaped_ = false;
  } else if (c == '\\') {
    escaped_ = true;
  } else if (c == '"') {
    in_string_ = false;
  }
  if (depth_ == 1 && in_string_ && last_string_.size() < kMaxKeyBytes) {
    last_string_.push_back(c);
  }
  return append(c);
}

Result<void> ListSplitter::take_outside_string(char c) {
  if (depth_ == 0 && !is_space(c) && c != '{') {
    return make_error(ErrorCode::kInvalid, "the answer is not a JSON object");
  }
  switch (c) {
    case '"':
      in_string_ = true;
      if (depth_ == 1) {
        last_string_.clear();
      }
      break;
    case '{':
    case '[':
      if (depth_ == 1 && c == '[' && after_colon_ && last_string_ == "items") {
        ST_TRY(append(c));
        in_items_ = true;
        depth_ = 2;
        return {};
      }
      ++depth_;
      break;
    case '}':
    case ']':
      if (in_items_ && depth_ == 2) {
        end_item();
        in_items_ = false;
      }
      --depth_;
      finished_ = depth_ == 0;
      break;
    case ',':
      if (in_items_ && depth_ == 2) {
        end_item();
        return {};
      }
      break;
    default:
      break;
  }
  if (depth_ == 1 && !is_space(c)) {
    after_colon_ = c == ':';
  }
  return append(c);
}

Result<void> ListSplitter::append(char c) {
  if (at_item()) {
    if (item_.empty() && !in_string_ && is_space(c)) {
      return {};
    }
    if (item_.size() >= max_item_bytes_) {
      too_long_ = true;
    } else {
      item_.push_back(c);
    }
    return {};
  }
  if (envelope_.size() >= kMaxEnvelopeBytes) {
    return make_error(ErrorCode::kFull, fmt::format("the list has more than {} bytes besides its "
                                                    "items",
                                                    kMaxEnvelopeBytes));
  }
  envelope_.push_back(c);
  return {};
}

void ListSplitter::end_item() {
  if (too_long_) {
    ++oversized_;
  } else if (!item_.empty()) {
    on_item_(item_);
  }
  too_long_ = false;
  item_.clear();
  if (item_.capacity() > kKeptCapacity) {
    item_ = std::string();
  }
}

Result<std::string> ListSplitter::finish() {
  if (!finished_) {
    return make_error(ErrorCode::kInvalid, "the list is cut off");
  }
  return std::exchange(envelope_, {});
}

Result<void> LineSplitter::feed(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    if (line_.size() + part.size() > max_line_bytes_) {
      return make_error(ErrorCode::kFull,
                        fmt::format("a line is longer than {} bytes", max_line_bytes_));
    }
    if (end == std::string_view::npos) {
      line_.append(part);
      return {};
    }
    if (line_.empty()) {
      if (!part.empty()) {
        on_line_(part);
      }
    } else {
      line_.append(part);
      on_line_(line_);
      line_.clear();
      if (line_.capacity() > kKeptCapacity) {
        line_ = std::string();
      }
    }
    bytes.remove_prefix(end + 1);
  }
  return {};
}

}  // namespace sidetrack::kube
