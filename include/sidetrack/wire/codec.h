// SPDX-License-Identifier: Apache-2.0
// How the structs of a protocol become JSON bodies of frames and come back, for the .cpp files of
// this folder. A message type has one template `fields(visit, message)`, which serves both
// directions; Item<T> (item.h) says how a value of type T looks. A protocol is a std::variant of
// its messages and a name for each; the name travels as "type". Thread rule: plain values.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
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
#include "sidetrack/wire/item.h"
#include "sidetrack/wire/limits.h"

namespace sidetrack::wire::codec {

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
