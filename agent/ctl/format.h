// SPDX-License-Identifier: Apache-2.0
// Text for people: tables, durations, sizes, colours. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::ctl {

enum class Colour { kNone, kRed, kYellow, kGreen, kBold };

// Adds terminal colours, or leaves the text alone.
class Painter {
 public:
  enum class Mode { kPlain, kColour };
  explicit Painter(Mode mode) : mode_(mode) {}
  [[nodiscard]] std::string paint(std::string_view text, Colour colour) const;

 private:
  Mode mode_;
};

struct Cell {
  std::string text;
  Colour colour = Colour::kNone;
};

// Left-aligned columns two spaces apart; empty cells show as "-"; no space at the ends of lines.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void add(std::vector<Cell> row);
  [[nodiscard]] bool empty() const { return rows_.empty(); }
  [[nodiscard]] std::string render(const Painter& painter) const;

 private:
  std::vector<std::vector<Cell>> rows_;
  std::vector<Cell> header_;
};

// "850us", "12ms", "3.4s", "2m05s", "3h12m", "5d04h".
[[nodiscard]] std::string format_duration(double seconds);
// "512B", "1.5KiB", "3.0MiB".
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);
// "12:31:07.123" local time.
[[nodiscard]] std::string format_clock(double unix_seconds);
// Parts as a share of the whole, "12%"; "-" if the whole is 0.
[[nodiscard]] std::string format_percent(std::uint64_t part, std::uint64_t whole);

// What is more is cut: a value in an object may have megabytes. JSON and YAML have it all.
inline constexpr std::size_t kMostColumns = 500;
inline constexpr std::size_t kMostCellColumns = 120;
// What we print comes from Kubernetes objects: bytes that are no text, or that could steer a
// terminal, are shown as \x1b, and what is over-long is cut, with how much is left out.
[[nodiscard]] std::string printable(std::string_view text, std::size_t most_columns = kMostColumns);

// Lists of what is wrong show so many: thousands are mostly one mistake made thousands of times.
inline constexpr std::size_t kMostListed = 20;
// The line below those: how many there are beside them, and the command that has all. Empty: none.
[[nodiscard]] std::string and_more(std::size_t all, std::string_view command);

// "90s", "5m", "1.5h", "1d", "250ms" in seconds, up to a year. kInvalid: the message names the text
// and what is meant.
[[nodiscard]] Result<double> parse_duration(std::string_view text);

}  // namespace sidetrack::ctl
