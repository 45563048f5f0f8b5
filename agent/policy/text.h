// SPDX-License-Identifier: Apache-2.0
// Small text helpers of this room: list items, numbers, and text of users cut to a length that can
// be shown. Pure.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "agent/policy/port_set.h"
#include "sidetrack/result.h"

namespace sidetrack::policy {

[[nodiscard]] std::string_view trim(std::string_view text);

// Calls `visit` for each item between commas, white space around it removed; stops at the first
// error. Text that is empty or white space has no items; an empty item is an error.
[[nodiscard]] Result<void> for_each_item(
    std::string_view text, const std::function<Result<void>(std::string_view)>& visit);

// Digits only, at most `maximum`.
[[nodiscard]] std::optional<unsigned> parse_number(std::string_view text, unsigned maximum);

// "443" or "8000-8100"; the error does not repeat the text.
[[nodiscard]] Result<PortRange> parse_port_range(std::string_view text);

// At most 200 bytes, cut between two UTF-8 characters: what Problem::value holds.
[[nodiscard]] std::string shorten(std::string_view text);

// kInvalid: "item": reason.
[[nodiscard]] Error item_error(std::string_view item, std::string_view reason);

}  // namespace sidetrack::policy
