// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/port_set.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace sidetrack::policy {
namespace {

constexpr std::uint32_t kPagePorts = ST_PORTS_PER_PAGE;

// Bits `first` to `last` of one word, both in.
std::uint64_t word_mask(std::uint32_t first, std::uint32_t last) {
  return (~std::uint64_t{0} << first) & (~std::uint64_t{0} >> (63 - last));
}

}  // namespace

PortSet::Page& PortSet::page(std::uint32_t number) {
  auto at =
      std::lower_bound(pages_.begin(), pages_.end(), number,
                       [](const Page& page, std::uint32_t wanted) { return page.number < wanted; });
  if (at == pages_.end() || at->number != number) {
    at = pages_.insert(at, Page{.number = number, .bits = {}});
  }
  return *at;
}

void PortSet::add(PortRange range) {
  assert(range.first >= 1 && range.first <= range.last);
  const std::uint32_t last = range.last;
  for (std::uint32_t port = range.first; port <= last;) {
    const std::uint32_t word_end = std::min(port | 63U, last);
    page(port / kPagePorts).bits[port % kPagePorts / 64] |= word_mask(port % 64, word_end % 64);
    port = word_end + 1;
  }
}

void PortSet::add(const PortSet& other) {
  for (const Page& theirs : other.pages_) {
    Page& ours = page(theirs.number);
    for (std::size_t word = 0; word < ours.bits.size(); ++word) {
      ours.bits[word] |= theirs.bits[word];
    }
  }
}

bool PortSet::contains(std::uint16_t port) const {
  const auto at =
      std::lower_bound(pages_.begin(), pages_.end(), port / kPagePorts,
                       [](const Page& page, std::uint32_t wanted) { return page.number < wanted; });
  return at != pages_.end() && at->number == port / kPagePorts &&
         ((at->bits[port % kPagePorts / 64] >> (port % 64)) & 1U) != 0;
}

std::size_t PortSet::count() const {
  std::size_t ports = 0;
  for (const Page& page : pages_) {
    for (const std::uint64_t word : page.bits) {
      ports += static_cast<std::size_t>(std::popcount(word));
    }
  }
  return ports;
}

bool PortSet::is_all() const {
  return pages_.size() == 65536 / kPagePorts && count() == 65535;
}

std::vector<PortRange> PortSet::ranges() const {
  std::vector<PortRange> ranges;
  for (const Page& page : pages_) {
    for (std::uint32_t bit = 0; bit < kPagePorts; ++bit) {
      if (((page.bits[bit / 64] >> (bit % 64)) & 1U) == 0) {
        continue;
      }
      const auto port = static_cast<std::uint16_t>(page.number * kPagePorts + bit);
      if (!ranges.empty() && ranges.back().last + 1 == port) {
        ranges.back().last = port;
      } else {
        ranges.push_back({port, port});
      }
    }
  }
  return ranges;
}

}  // namespace sidetrack::policy
