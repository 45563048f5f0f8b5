// SPDX-License-Identifier: Apache-2.0
// A set of TCP ports, stored as the kernel stores it: pages of 512 ports, empty pages left out
// (st_port_page). A policy may hold thousands of small sets; 8 KiB for each would let one
// annotation fill the agent's memory. A value; no sharing.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "sidetrack/abi/types.h"

namespace sidetrack::policy {

// Ports from `first` to `last`, both in. Port 0 is never a member of anything.
struct PortRange {
  std::uint16_t first = 1;
  std::uint16_t last = 65535;
  [[nodiscard]] bool contains(std::uint16_t port) const { return port >= first && port <= last; }
  [[nodiscard]] bool is_all() const { return first == 1 && last == 65535; }
  auto operator<=>(const PortRange&) const = default;
};

class PortSet {
 public:
  struct Page {
    std::uint32_t number = 0;  // port / 512
    std::array<std::uint64_t, ST_PORTS_PER_PAGE / 64> bits{};
    auto operator<=>(const Page&) const = default;
  };

  void add(PortRange range);
  void add(const PortSet& other);
  [[nodiscard]] bool contains(std::uint16_t port) const;
  [[nodiscard]] bool empty() const { return pages_.empty(); }
  [[nodiscard]] std::size_t count() const;
  // Every port from 1 to 65,535.
  [[nodiscard]] bool is_all() const;
  // Sorted by number, none of them empty.
  [[nodiscard]] const std::vector<Page>& pages() const { return pages_; }
  // As few ranges as possible, ascending.
  [[nodiscard]] std::vector<PortRange> ranges() const;
  auto operator<=>(const PortSet&) const = default;

 private:
  Page& page(std::uint32_t number);

  std::vector<Page> pages_;
};

}  // namespace sidetrack::policy
