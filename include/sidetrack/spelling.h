// SPDX-License-Identifier: Apache-2.0
// Which known word one that is written otherwise may have been meant for. Pure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace sidetrack::spelling {

// "excludeOutbound_Ports" -> "excludeoutboundports".
inline std::string plain(std::string_view name) {
  std::string result;
  for (const char character : name) {
    if (character >= 'A' && character <= 'Z') {
      result += static_cast<char>(character - 'A' + 'a');
    } else if (character != '-' && character != '_' && character != '.') {
      result += character;
    }
  }
  return result;
}

// How many letters have to be put in, taken out or changed.
inline std::size_t distance(std::string_view one, std::string_view other) {
  std::vector<std::size_t> row(other.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < one.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < other.size(); ++j) {
      const std::size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (one[i] == other[j] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row.back();
}

// The most letters that differ where this key, both plain, is what was meant: a third.
inline std::size_t most_apart(std::string_view key) {
  return std::max<std::size_t>(key.size() / 3, 1);
}

}  // namespace sidetrack::spelling
