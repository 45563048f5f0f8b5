// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/document.h"

#include <fmt/format.h>

#include <utility>

namespace sidetrack::kube {
namespace {

using nlohmann::json;

// One token of a JSON pointer as the key that it stands for.
std::string unescape_token(std::string_view token) {
  std::string out;
  for (std::size_t i = 0; i < token.size(); ++i) {
    if (token[i] == '~' && i + 1 < token.size()) {
      ++i;
      out += token[i] == '1' ? '/' : '~';
    } else {
      out += token[i];
    }
  }
  return out;
}

}  // namespace

Error file_too_large() {
  return make_error(ErrorCode::kFull, fmt::format("is larger than {} MiB", kMaxFileBytes >> 20U));
}

std::uint32_t LineTable::add(std::uint32_t parent, std::string key, int line) {
  entries_.push_back(Entry{.parent = parent, .line = line, .key = std::move(key)});
  return static_cast<std::uint32_t>(entries_.size() - 1);
}

int LineTable::find(std::string_view pointer) const {
  if (entries_.empty()) {
    return 0;
  }
  std::uint32_t current = 0;
  while (!pointer.empty()) {
    pointer.remove_prefix(1);
    const std::string key = unescape_token(pointer.substr(0, pointer.find('/')));
    std::uint32_t i = current + 1;
    while (i < entries_.size() && entries_[i].parent >= current &&
           (entries_[i].parent != current || entries_[i].key != key)) {
      ++i;
    }
    if (i >= entries_.size() || entries_[i].parent != current) {
      break;
    }
    current = i;
    const std::size_t slash = pointer.find('/');
    pointer = slash == std::string_view::npos ? std::string_view() : pointer.substr(slash);
  }
  return entries_[current].line;
}

Result<void> DocumentBuilder::charge(Size size) {
  used_.nodes += size.nodes;
  used_.bytes += size.bytes;
  if (used_.nodes > kMaxFileNodes || used_.bytes > kMaxExpandedBytes) {
    return make_error(
        ErrorCode::kFull,
        fmt::format(
            "holds more than {} values or {} MiB of text (aliases count as what they stand for)",
            kMaxFileNodes, kMaxExpandedBytes >> 20U));
  }
  return {};
}

bool DocumentBuilder::wants_key() const {
  return !frames_.empty() && frames_.back().value.is_object() && !frames_.back().has_key;
}

// A member stands where its key is: the first line of a block map is that of its first member.
std::uint32_t DocumentBuilder::note_line(int line) {
  if (frames_.empty()) {
    return document_.lines.add(0, {}, line);
  }
  const Frame& frame = frames_.back();
  return frame.value.is_object()
             ? document_.lines.add(frame.entry, frame.key, frame.key_line)
             : document_.lines.add(frame.entry, fmt::format("{}", frame.value.size()), line);
}

Result<void> DocumentBuilder::begin(json::value_t container, int line, Anchor anchor) {
  if (frames_.size() >= kMaxDocumentDepth) {
    return make_error(ErrorCode::kFull, fmt::format("is nested deeper than {}", kMaxDocumentDepth));
  }
  if (wants_key()) {
    return make_error(ErrorCode::kInvalid, "the key of a map must be a plain value");
  }
  const Size before = used_;
  ST_TRY(charge(Size{.nodes = 1, .bytes = 0}));
  const std::uint32_t entry = note_line(line);
  frames_.emplace_back();
  Frame& frame = frames_.back();
  frame.value = json(container);
  frame.entry = entry;
  frame.anchor = anchor;
  frame.before = before;
  return {};
}

Result<void> DocumentBuilder::end() {
  Frame frame = std::move(frames_.back());
  frames_.pop_back();
  const Size size{.nodes = used_.nodes - frame.before.nodes,
                  .bytes = used_.bytes - frame.before.bytes};
  return attach(std::move(frame.value), frame.anchor, size);
}

Result<void> DocumentBuilder::key(std::string name, int line) {
  ST_TRY(charge(Size{.nodes = 0, .bytes = name.size()}));
  Frame& frame = frames_.back();
  if (frame.value.contains(name)) {
    return make_error(ErrorCode::kExists, "this key is in the map twice");
  }
  frame.key = std::move(name);
  frame.key_line = line;
  frame.has_key = true;
  return {};
}

Result<void> DocumentBuilder::scalar(json value, int line, Anchor anchor) {
  const Size size{.nodes = 1,
                  .bytes = value.is_string() ? value.get_ref<const std::string&>().size() : 0};
  ST_TRY(charge(size));
  note_line(line);
  return attach(std::move(value), anchor, size);
}

Result<void> DocumentBuilder::alias(Anchor anchor, int line) {
  const auto found = anchors_.find(anchor);
  if (found == anchors_.end()) {
    return make_error(ErrorCode::kInvalid, "the alias stands within what it names");
  }
  if (wants_key()) {
    return make_error(ErrorCode::kInvalid, "the key of a map must be a plain value");
  }
  ST_TRY(charge(found->second.size));
  note_line(line);
  return attach(found->second.value, 0, found->second.size);
}

const std::string* DocumentBuilder::anchored_text(Anchor anchor) const {
  const auto found = anchors_.find(anchor);
  return found == anchors_.end() ? nullptr : found->second.value.get_ptr<const std::string*>();
}

Result<void> DocumentBuilder::attach(json value, Anchor anchor, Size size) {
  if (anchor != 0) {
    ST_TRY(charge(size));  // the copy that is kept
    anchors_.insert_or_assign(anchor, Anchored{.value = value, .size = size});
  }
  if (frames_.empty()) {
    document_.value = std::move(value);
    return {};
  }
  Frame& frame = frames_.back();
  if (frame.value.is_object()) {
    frame.value.emplace(std::move(frame.key), std::move(value));
    frame.has_key = false;
  } else {
    frame.value.push_back(std::move(value));
  }
  return {};
}

Document DocumentBuilder::take() {
  frames_.clear();
  anchors_.clear();
  return std::exchange(document_, Document{});
}

}  // namespace sidetrack::kube
