// SPDX-License-Identifier: Apache-2.0
// How the structs of a protocol become JSON bodies of frames and come back, for the .cpp files of
// this folder. A message type has one template `fields(visit, message)`, which serves both
// directions; Item<T> says how a value of type T looks. A protocol is a std::variant of its
// messages and a name for each; the name travels as "type". Thread rule: plain values.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "sidetrack/result.h"
#include "sidetrack/wire/framing.h"
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

class Writer {
 public:
  explicit Writer(std::string_view kind) : out_{{"type", kind}} {}

  template <typename T>
  void operator()(const char* name, const T& value) {
    note(name, Item<T>::refusal(value));
    out_[name] = Item<T>::write(value);
  }
  template <typename T>
  void operator()(const char* name, const std::vector<T>& list, std::size_t limit) {
    if (list.size() > limit) {
      note(name, "has too many items");
      return;
    }
    json array = json::array();
    for (const T& value : list) {
      note(name, Item<T>::refusal(value));
      array.push_back(Item<T>::write(value));
    }
    out_[name] = std::move(array);
  }

  [[nodiscard]] Result<std::string> finish() const {
    if (error_) {
      return *error_;
    }
    std::string body = out_.dump(-1, ' ', false, json::error_handler_t::ignore);
    if (body.size() > kMaxFrameBytes) {
      return make_error(ErrorCode::kInvalid, "encode: message of " + std::to_string(body.size()) +
                                                 " bytes is over 1 MiB");
    }
    return body;
  }

 private:
  void note(const char* name, const std::string& refusal) {
    if (!refusal.empty()) {
      error_ = make_error(ErrorCode::kInvalid, std::string("encode: ") + name + " " + refusal);
    }
  }

  json out_;
  std::optional<Error> error_;
};

class Reader {
 public:
  explicit Reader(const json& object) : object_(object) {}

  template <typename T>
  void operator()(const char* name, T&& value) {
    const auto found = object_.find(name);
    if (found == object_.end() || !Item<std::remove_cvref_t<T>>::read(*found, value)) {
      fail(name);
    }
  }
  template <typename T>
  void operator()(const char* name, std::vector<T>& list, std::size_t limit) {
    const auto found = object_.find(name);
    if (found == object_.end() || !found->is_array() || found->size() > limit) {
      fail(name);
      return;
    }
    list.resize(found->size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (!Item<T>::read((*found)[i], list[i])) {
        fail(name);
        return;
      }
    }
  }

  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  void fail(const char* name) {
    if (!error_) {
      error_ = make_error(ErrorCode::kInvalid,
                          std::string("field ") + name + " is missing or not valid");
    }
  }

  const json& object_;
  std::optional<Error> error_;
};

template <typename Message, std::size_t I = 0>
[[nodiscard]] Message empty_message(std::size_t kind) {
  if constexpr (I + 1 < std::variant_size_v<Message>) {
    if (kind != I) {
      return empty_message<Message, I + 1>(kind);
    }
  }
  return Message(std::in_place_index<I>);
}

// The names of a protocol's messages, in the order of its variant.
template <typename Message>
using Kinds = std::array<std::string_view, std::variant_size_v<Message>>;

// The frame body. Reasons are cut, invalid UTF-8 is left out. kInvalid: a name or list over its
// limit.
template <typename Message>
[[nodiscard]] Result<std::string> encode(const Message& message, const Kinds<Message>& kinds) {
  Writer writer(kinds.at(message.index()));
  // `fields` takes both directions by reference; the Writer only reads.
  std::visit(
      [&writer](const auto& m) {
        fields(writer, const_cast<std::remove_cvref_t<decltype(m)>&>(m));
      },
      message);
  return writer.finish();
}

// Unknown fields are ignored. kUnsupported: an unknown kind; kInvalid: everything else.
template <typename Message>
[[nodiscard]] Result<Message> decode(std::string_view body, const Kinds<Message>& kinds) {
  const json object = json::parse(body, nullptr, false);
  if (!object.is_object()) {
    return make_error(ErrorCode::kInvalid, "decode: not a JSON object");
  }
  const auto type = object.find("type");
  const auto* text = type == object.end() ? nullptr : type->get_ptr<const std::string*>();
  if (text == nullptr) {
    return make_error(ErrorCode::kInvalid, "decode: field type is missing or not valid");
  }
  const auto* const kind = std::find(kinds.begin(), kinds.end(), *text);
  if (kind == kinds.end()) {
    return make_error(ErrorCode::kUnsupported,
                      "decode: unknown message type " + text->substr(0, kMaxText));
  }
  Message message = empty_message<Message>(static_cast<std::size_t>(kind - kinds.begin()));
  Reader reader(object);
  std::visit([&reader](auto& m) { fields(reader, m); }, message);
  if (reader.error()) {
    return reader.error()->within("decode " + *text);
  }
  return message;
}

}  // namespace sidetrack::wire::codec
