// SPDX-License-Identifier: Apache-2.0
// Arithmetic on prefixes of 128-bit addresses. Pure, header only; byte order as in st_addr.
#pragma once

#include <cstdint>
#include <cstring>

#include "sidetrack/abi/types.h"
#include "sidetrack/decide.h"

namespace sidetrack::policy {

// The address with everything behind the prefix cleared.
[[nodiscard]] inline st_addr masked(st_addr address, unsigned prefix) {
  for (unsigned byte = 0; byte < 16; ++byte) {
    const unsigned kept = prefix <= byte * 8 ? 0 : prefix - byte * 8;
    if (kept < 8) {
      address.bytes[byte] = static_cast<std::uint8_t>(address.bytes[byte] & ~(0xffU >> kept));
    }
  }
  return address;
}

[[nodiscard]] inline int compare(const st_addr& a, const st_addr& b) {
  return std::memcmp(a.bytes, b.bytes, sizeof a.bytes);
}

// A prefix within ::ffff:0:0/96 is one of IPv4.
[[nodiscard]] inline bool is_v4_prefix(const st_addr& address, unsigned prefix) {
  return prefix >= 96 && st_addr_is_v4(&address) != 0;
}

// Bits only: ::/0 contains every IPv4 address here.
[[nodiscard]] inline bool prefix_contains(const st_addr& network, unsigned prefix,
                                          const st_addr& address) {
  return compare(network, masked(address, prefix)) == 0;
}

}  // namespace sidetrack::policy
