// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

namespace sidetrack::kube {
namespace {

using nlohmann::json;

std::string escape_token(std::string_view token) {
  std::string out;
  for (const char c : token) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

std::string shown(const json& value) {
  if (value.is_string()) {
    return cut_shown(value.get_ref<const std::string&>());
  }
  if (value.is_object() || value.is_array()) {
    return value.is_object() ? "{...}" : "[...]";
  }
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string wrong_type(std::string_view wanted, const json& value) {
  return fmt::format("must be {}, not {} {}", wanted,
                     value.is_object() || value.is_array() ? "an" : "a", value.type_name());
}

}  // namespace

std::string cut_shown(std::string_view text) {
  if (text.size() <= kMaxShownBytes) {
    return std::string(text);
  }
  std::size_t end = kMaxShownBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
    --end;
  }
  return std::string(text.substr(0, end));
}

Field::Field(const json* value, std::string pointer, std::vector<Issue>& issues)
    : value_(value != nullptr && value->is_null() ? nullptr : value),
      pointer_(std::move(pointer)),
      issues_(&issues) {}

Field Field::at(std::string_view key) const {
  std::string pointer = pointer_ + "/" + escape_token(key);
  if (value_ != nullptr && value_->is_object()) {
    const auto found = value_->find(key);
    return Field(found == value_->end() ? nullptr : &*found, std::move(pointer), *issues_);
  }
  Field absent(nullptr, std::move(pointer), *issues_);
  absent.parent_failed_ = parent_failed_ || value_ != nullptr;
  // Several members are read from the same place: one issue says enough.
  const auto same_place = [&](const Issue& issue) { return issue.pointer == pointer_; };
  if (value_ != nullptr && std::none_of(issues_->begin(), issues_->end(), same_place)) {
    fail(wrong_type("an object", *value_));
  }
  return absent;
}

std::vector<Field> Field::items() const {
  std::vector<Field> fields;
  if (value_ == nullptr) {
    return fields;
  }
  if (!value_->is_array()) {
    fail(wrong_type("a list", *value_));
    return fields;
  }
  fields.reserve(value_->size());
  for (std::size_t i = 0; i < value_->size(); ++i) {
    fields.emplace_back(&(*value_)[i], fmt::format("{}/{}", pointer_, i), *issues_);
  }
  return fields;
}

std::string Field::text(std::string_view fallback) const {
  if (value_ == nullptr) {
    return std::string(fallback);
  }
  if (!value_->is_string()) {
    const bool scalar = value_->is_primitive();
    fail(wrong_type("a string", *value_) + (scalar ? ": quote it" : ""));
    return std::string(fallback);
  }
  return value_->get<std::string>();
}

bool Field::missing() const {
  if (value_ == nullptr && !parent_failed_) {
    fail("is missing");
  }
  return value_ == nullptr;
}

std::string Field::required_text() const {
  if (missing()) {
    return {};
  }
  std::string result = text();
  if (value_->is_string() && result.empty()) {
    fail("must not be empty");
  }
  return result;
}

bool Field::boolean(bool fallback) const {
  if (value_ == nullptr) {
    return fallback;
  }
  if (!value_->is_boolean()) {
    fail(wrong_type("true or false", *value_));
    return fallback;
  }
  return value_->get<bool>();
}

std::uint32_t Field::number(std::uint32_t low, std::uint32_t high, std::uint32_t fallback) const {
  if (value_ == nullptr) {
    return fallback;
  }
  if (!value_->is_number_integer()) {
    fail(wrong_type("a whole number", *value_));
    return fallback;
  }
  const bool negative = !value_->is_number_unsigned() && value_->get<std::int64_t>() < 0;
  const auto number = negative ? 0 : value_->get<std::uint64_t>();
  if (negative || number < low || number > high) {
    fail(fmt::format("must be {}-{}", low, high));
    return fallback;
  }
  return static_cast<std::uint32_t>(number);
}

std::uint16_t Field::required_port() const {
  if (missing()) {
    return 0;
  }
  return static_cast<std::uint16_t>(number(1, 65535, 0));
}

std::map<std::string, std::string> Field::text_map() const {
  std::map<std::string, std::string> result;
  if (value_ == nullptr) {
    return result;
  }
  if (!value_->is_object()) {
    fail(wrong_type("an object", *value_));
    return result;
  }
  for (const auto& member : value_->items()) {
    result.emplace(member.key(), at(member.key()).text());
  }
  return result;
}

void Field::fail(std::string reason) const {
  note(std::move(reason), false);
}

void Field::warn(std::string reason) const {
  note(std::move(reason), true);
}

void Field::note(std::string reason, bool warning) const {
  if (issues_->size() >= kMaxIssuesOfObject) {
    return;
  }
  issues_->push_back(Issue{.object = {},
                           .pointer = pointer_,
                           .value = value_ == nullptr ? std::string() : shown(*value_),
                           .reason = std::move(reason),
                           .warning = warning});
}

}  // namespace sidetrack::kube
