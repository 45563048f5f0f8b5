// SPDX-License-Identifier: Apache-2.0
// How one value of a message looks in JSON, and which values are refused. A protocol's own types
// specialise Item in its .cpp file. Thread rule: plain values.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>

#include <nlohmann/json.hpp>

#include "sidetrack/wire/limits.h"

namespace sidetrack::wire::codec {

using nlohmann::json;

// A text that is cut when it is too long, where a name would be an error.
struct Reason {
  std::string& text;
};

// refusal: why this value must not be sent, empty if it may. read: false if it is not valid.
template <typename T>
struct Item;

template <std::integral T>
struct Item<T> {
  static std::string refusal(T /*value*/) { return {}; }
  static json write(T value) { return value; }
  // No field is negative; "-1", "1.5" and what does not fit are rejected alike.
  static bool read(const json& value, T& out) {
    const auto* number = value.get_ptr<const std::uint64_t*>();
    if (number == nullptr || *number > static_cast<std::uint64_t>(std::numeric_limits<T>::max())) {
      return false;
    }
    out = static_cast<T>(*number);
    return true;
  }
};

template <>
struct Item<bool> {
  static std::string refusal(bool /*value*/) { return {}; }
  static json write(bool value) { return value; }
  static bool read(const json& value, bool& out) {
    const auto* flag = value.get_ptr<const bool*>();
    out = flag != nullptr && *flag;
    return flag != nullptr;
  }
};

template <>
struct Item<std::string> {
  static std::string refusal(const std::string& value) {
    return value.size() > kMaxText ? "is longer than 256 bytes" : "";
  }
  static json write(const std::string& value) { return value; }
  static bool read(const json& value, std::string& out) {
    const auto* text = value.get_ptr<const std::string*>();
    if (text == nullptr || text->size() > kMaxText) {
      return false;
    }
    out = *text;
    return true;
  }
};

template <>
struct Item<Reason> {
  static std::string refusal(const Reason& /*value*/) { return {}; }
  static json write(const Reason& value) { return value.text.substr(0, kMaxText); }
  static bool read(const json& value, const Reason& out) {
    return Item<std::string>::read(value, out.text);
  }
};

}  // namespace sidetrack::wire::codec
