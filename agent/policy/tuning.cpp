// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/tuning.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <set>
#include <string>

#include "agent/policy/text.h"

namespace sidetrack::policy {

namespace {

constexpr unsigned kMostKeepaliveS = 32767;  // MAX_TCP_KEEPIDLE (include/net/tcp.h)
constexpr unsigned kMostMs = 24U * 3600U * 1000U;

// In milliseconds; at least one, at most a day.
std::optional<unsigned> parse_ms(std::string_view text) {
  struct Unit {
    std::string_view name;
    unsigned ms;
  };
  // "ms" before "s".
  constexpr std::array<Unit, 4> kUnits{{{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};
  for (const Unit& unit : kUnits) {
    if (!text.ends_with(unit.name)) {
      continue;
    }
    const auto count =
        parse_number(text.substr(0, text.size() - unit.name.size()), kMostMs / unit.ms);
    return count && *count > 0 ? std::optional(*count * unit.ms) : std::nullopt;
  }
  return std::nullopt;
}

bool is_algorithm(std::string_view name) {
  return !name.empty() && name.size() < ST_CONGESTION_BYTES &&
         std::all_of(name.begin(), name.end(), [](unsigned char letter) {
           return std::isalnum(letter) != 0 || letter == '_' || letter == '-';
         });
}

Result<void> read_item(std::string_view item, std::string_view name,
                       std::optional<std::string_view> value, st_tuning& tuning) {
  if (name == "nodelay" && !value) {
    tuning.nodelay = 1;
    return {};
  }
  if (name == "congestion" && value) {
    if (!is_algorithm(*value)) {
      return item_error(item, "no name of a congestion control algorithm");
    }
    std::copy(value->begin(), value->end(), tuning.congestion);
    return {};
  }
  const bool is_keepalive = name == "keepalive";
  if (!value || (!is_keepalive && name != "user-timeout")) {
    return item_error(item, "not one of keepalive=..., user-timeout=..., congestion=..., nodelay");
  }
  const auto ms = parse_ms(*value);
  if (!ms) {
    return item_error(item, "not a duration from 1ms to 24h, like 60s");
  }
  if (!is_keepalive) {
    tuning.user_timeout_ms = *ms;
    return {};
  }
  if (*ms % 1000 != 0 || *ms / 1000 > kMostKeepaliveS) {
    return item_error(item, "not whole seconds, at most 32767s");
  }
  tuning.keepalive_s = *ms / 1000;
  return {};
}

}  // namespace

Result<st_tuning> parse_tuning(std::string_view text) {
  st_tuning tuning{};
  std::set<std::string_view> seen;
  const auto read = for_each_item(text, [&](std::string_view item) -> Result<void> {
    const auto equals = item.find('=');
    const std::string_view name = trim(item.substr(0, equals));
    if (!seen.insert(name).second) {
      return item_error(item, "there twice");
    }
    return read_item(item, name,
                     equals == std::string_view::npos
                         ? std::nullopt
                         : std::optional(trim(item.substr(equals + 1))),
                     tuning);
  });
  ST_TRY(read);
  return tuning;
}

}  // namespace sidetrack::policy
