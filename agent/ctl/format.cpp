// SPDX-License-Identifier: Apache-2.0
#include "agent/ctl/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <utility>

#include <boost/locale/utf.hpp>

namespace sidetrack::ctl {
namespace {

constexpr double kMostSeconds = 365.0 * 86400;

using Utf8 = boost::locale::utf::utf_traits<char>;

// What could steer a terminal or reverse what is read: controls, also those of U+0080 to U+009F,
// line ends, and marks of writing direction.
bool is_steering(boost::locale::utf::code_point point) {
  return point < 0x20 || (point >= 0x7f && point < 0xa0) || (point >= 0x200b && point <= 0x200f) ||
         (point >= 0x2028 && point <= 0x202e) || (point >= 0x2060 && point <= 0x206f) ||
         point == 0xfeff;
}

const char* code_of(Colour colour) {
  switch (colour) {
    case Colour::kRed:
      return "31";
    case Colour::kYellow:
      return "33";
    case Colour::kGreen:
      return "32";
    case Colour::kBold:
      return "1";
    case Colour::kNone:
      break;
  }
  return "0";
}

// Columns on the screen: UTF-8 continuation bytes take none.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U;
  }));
}

void append_row(std::string& out, const std::vector<Cell>& row,
                const std::vector<std::size_t>& widths, const Painter& painter) {
  for (std::size_t i = 0; i < row.size(); ++i) {
    out += painter.paint(row[i].text, row[i].colour);
    if (i + 1 < row.size()) {
      out.append(widths[i] - width_of(row[i].text) + 2, ' ');
    }
  }
  out += '\n';
}

}  // namespace

std::string Painter::paint(std::string_view text, Colour colour) const {
  if (mode_ == Mode::kPlain || colour == Colour::kNone || text.empty()) {
    return std::string(text);
  }
  return fmt::format("\x1b[{}m{}\x1b[0m", code_of(colour), text);
}

Table::Table(std::vector<std::string> header) {
  for (auto& title : header) {
    header_.push_back({std::move(title), Colour::kBold});
  }
}

void Table::add(std::vector<Cell> row) {
  row.resize(header_.size());
  for (auto& cell : row) {
    cell.text = cell.text.empty() ? "-" : printable(cell.text, kMostCellColumns);
  }
  rows_.push_back(std::move(row));
}

std::string Table::render(const Painter& painter) const {
  std::vector<std::size_t> widths;
  for (const auto& cell : header_) {
    widths.push_back(width_of(cell.text));
  }
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], width_of(row[i].text));
    }
  }
  std::string out;
  append_row(out, header_, widths, painter);
  for (const auto& row : rows_) {
    append_row(out, row, widths, painter);
  }
  return out;
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) {
    return "-";
  }
  if (seconds < 0.001) {
    return fmt::format("{:.0f}us", seconds * 1e6);
  }
  if (seconds < 0.9995) {
    return fmt::format("{:.0f}ms", seconds * 1e3);
  }
  if (seconds < 59.95) {
    return fmt::format("{:.1f}s", seconds);
  }
  const auto whole = static_cast<std::uint64_t>(std::llround(seconds));
  if (whole < 3600) {
    return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  }
  if (whole < 86400) {
    return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
  }
  return fmt::format("{}d{:02}h", whole / 86400, whole / 3600 % 24);
}

std::string format_bytes(std::uint64_t bytes) {
  if (bytes < 1024) {
    return fmt::format("{}B", bytes);
  }
  static constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f}{}", value, kUnits[unit]);
}

std::string format_clock(double unix_seconds) {
  const double whole = std::floor(unix_seconds);
  const auto seconds = static_cast<std::time_t>(whole);
  std::tm local{};
  ::localtime_r(&seconds, &local);
  const int milliseconds = std::min(999, static_cast<int>((unix_seconds - whole) * 1000));
  return fmt::format("{:02}:{:02}:{:02}.{:03}", local.tm_hour, local.tm_min, local.tm_sec,
                     milliseconds);
}

std::string format_percent(std::uint64_t part, std::uint64_t whole) {
  if (whole == 0) {
    return "-";
  }
  return fmt::format("{:.0f}%", 100 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string printable(std::string_view text, std::size_t most_columns) {
  std::string out;
  std::size_t columns = 0;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    const char* next = at;
    const auto point = Utf8::decode(next, end);
    std::string shown;
    if (!boost::locale::utf::is_valid_codepoint(point)) {
      next = at + 1;  // this byte alone: what follows may be text again
      shown = fmt::format("\\x{:02x}", static_cast<unsigned char>(*at));
    } else if (is_steering(point)) {
      shown = point < 0x80 ? fmt::format("\\x{:02x}", point) : fmt::format("\\u{:04x}", point);
    } else {
      shown.assign(at, next);
    }
    const std::size_t width = width_of(shown);
    if (columns + width > most_columns) {
      return out + fmt::format("... ({} bytes more)", end - at);
    }
    out += shown;
    columns += width;
    at = next;
  }
  return out;
}

std::string and_more(std::size_t all, std::string_view command) {
  return all <= kMostListed ? "" : fmt::format("  and {} more: {}\n", all - kMostListed, command);
}

Result<double> parse_duration(std::string_view text) {
  const auto wrong = [text](const char* why) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("'{}': a time such as 30s, 5m or 2h is meant, {}",
                                  printable(text, kMostCellColumns), why));
  };
  double value = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value, std::chars_format::fixed);
  constexpr const char* kLimits = "more than 0 and at most 365d";
  if (error == std::errc::result_out_of_range) {
    return wrong(kLimits);
  }
  if (error != std::errc{} || !std::isfinite(value)) {
    return wrong("a number first");
  }
  const std::string_view unit(end, static_cast<std::size_t>(last - end));
  static constexpr std::array<std::pair<std::string_view, double>, 5> kUnits = {
      {{"s", 1}, {"ms", 0.001}, {"m", 60}, {"h", 3600}, {"d", 86400}}};
  for (const auto& [name, factor] : kUnits) {
    if (unit == name) {
      return value > 0 && value * factor <= kMostSeconds ? Result<double>(value * factor)
                                                         : wrong(kLimits);
    }
  }
  return wrong("with the unit ms, s, m, h or d");
}

}  // namespace sidetrack::ctl
