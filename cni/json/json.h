// SPDX-License-Identifier: Apache-2.0
// Where the parts of a JSON text are, so that they can be copied byte for byte: no number is read
// and written again, no key reordered, no escape changed. The whole text is checked (RFC 8259,
// UTF-8, at most 64 levels). Of members with the same name the last one counts, as for Go. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::cni::json {

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;  // one past the last byte
  [[nodiscard]] std::string_view of(std::string_view text) const {
    return text.substr(begin, end - begin);
  }
};

struct Member {
  std::string key;  // without escapes
  Span value;
};

struct Object {
  Span span;  // from { to }
  std::vector<Member> members;

  // kNotFound is nullptr.
  [[nodiscard]] const Member* find(std::string_view key) const;
};

struct Array {
  Span span;  // from [ to ]
  std::vector<Span> elements;
};

// The text is one object (or array), with space around it. kInvalid: it is not, and where it
// breaks.
[[nodiscard]] Result<Object> read_object(std::string_view text);
[[nodiscard]] Result<Array> read_array(std::string_view text);

// The text of a string; none if the value is something else.
[[nodiscard]] std::optional<std::string> read_string(std::string_view value);

// The member's string; none if there is no such member or it is something else. `text` is what
// `object` was read from.
[[nodiscard]] std::optional<std::string> string_member(std::string_view text, const Object& object,
                                                       std::string_view key);

// A JSON string of this text, with quotes; what is no UTF-8 is left out.
[[nodiscard]] std::string quoted(std::string_view text);

}  // namespace sidetrack::cni::json
