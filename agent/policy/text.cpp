// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/text.h"

#include <fmt/format.h>

#include <charconv>

namespace sidetrack::policy {

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

Result<void> for_each_item(std::string_view text,
                           const std::function<Result<void>(std::string_view)>& visit) {
  if (trim(text).empty()) {
    return {};
  }
  for (std::size_t number = 1;; ++number) {
    const auto comma = text.find(',');
    const std::string_view item = trim(text.substr(0, comma));
    if (item.empty()) {
      return make_error(ErrorCode::kInvalid, fmt::format("item {} is empty", number));
    }
    ST_TRY(visit(item));
    if (comma == std::string_view::npos) {
      return {};
    }
    text.remove_prefix(comma + 1);
  }
}

std::optional<unsigned> parse_number(std::string_view text, unsigned maximum) {
  unsigned number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc{} || stop != end || number > maximum) {
    return std::nullopt;
  }
  return number;
}

Result<PortRange> parse_port_range(std::string_view text) {
  const auto dash = text.find('-');
  const auto first = parse_number(text.substr(0, dash), 65535);
  const auto last =
      dash == std::string_view::npos ? first : parse_number(text.substr(dash + 1), 65535);
  if (!first || !last || *first == 0 || *last == 0) {
    return make_error(ErrorCode::kInvalid, "not a port or a range of ports (1-65535)");
  }
  if (*first > *last) {
    return make_error(ErrorCode::kInvalid, "the range runs backwards");
  }
  return PortRange{static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
}

std::string shorten(std::string_view text) {
  constexpr std::size_t kShownBytes = 200;
  if (text.size() <= kShownBytes) {
    return std::string(text);
  }
  std::size_t size = kShownBytes;
  // Half a character would make the JSON that shows it invalid.
  while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0U) == 0x80U) {
    --size;
  }
  return std::string(text.substr(0, size));
}

Error item_error(std::string_view item, std::string_view reason) {
  return make_error(ErrorCode::kInvalid, fmt::format("\"{}\": {}", shorten(item), reason));
}

}  // namespace sidetrack::policy
