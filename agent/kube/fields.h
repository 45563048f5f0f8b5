// SPDX-License-Identifier: Apache-2.0
// Field: one place in a JSON object with its JSON pointer. Reading it as a type that it does not
// have notes an Issue and yields the fallback, so that a decoder reads straight on and asks once at
// the end. null counts as absent, as in Kubernetes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/kube/decode.h"

namespace sidetrack::kube {

inline constexpr std::size_t kMaxShownBytes = 200;
// One object's issues beyond this are not noted; the first says that it cannot be used.
inline constexpr std::size_t kMaxIssuesOfObject = 100;

// `text` cut to what a Problem may show, never within a UTF-8 sequence.
[[nodiscard]] std::string cut_shown(std::string_view text);

class Field {
 public:
  // `value` may be null (absent) and, like `issues`, must outlive this field.
  Field(const nlohmann::json* value, std::string pointer, std::vector<Issue>& issues);

  [[nodiscard]] bool present() const { return value_ != nullptr; }
  [[nodiscard]] const std::string& pointer() const { return pointer_; }
  [[nodiscard]] const nlohmann::json* value() const { return value_; }

  // The member `key`; absent if this is absent or has none. An issue if this is not an object.
  [[nodiscard]] Field at(std::string_view key) const;
  // The elements; none if absent. An issue if this is not an array.
  [[nodiscard]] std::vector<Field> items() const;

  [[nodiscard]] std::string text(std::string_view fallback = "") const;
  [[nodiscard]] std::string required_text() const;
  [[nodiscard]] bool boolean(bool fallback) const;
  [[nodiscard]] std::uint32_t number(std::uint32_t low, std::uint32_t high,
                                     std::uint32_t fallback) const;
  // A port, 1-65535; absent is an issue.
  [[nodiscard]] std::uint16_t required_port() const;
  [[nodiscard]] std::map<std::string, std::string> text_map() const;

  void fail(std::string reason) const;
  void warn(std::string reason) const;

 private:
  void note(std::string reason, bool warning) const;

  [[nodiscard]] bool missing() const;

  const nlohmann::json* value_;
  std::string pointer_;
  std::vector<Issue>* issues_;
  bool parent_failed_ = false;  // absent because its parent is no object, which has been said
};

}  // namespace sidetrack::kube
