// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <fmt/format.h>

#include <array>
#include <cstring>

#include "agent/policy/policy.h"
#include "agent/policy/text.h"

namespace sidetrack::policy {

Result<st_addr> parse_address(std::string_view text) {
  const std::string terminated(text);
  st_addr address{};
  // inet_pton stops at a zero byte: what follows it would go unseen.
  if (text.find('\0') == std::string_view::npos) {
    if (inet_pton(AF_INET6, terminated.c_str(), address.bytes) == 1) {
      return address;
    }
    address = st_addr{};
    address.bytes[10] = address.bytes[11] = 0xff;
    if (inet_pton(AF_INET, terminated.c_str(), address.bytes + 12) == 1) {
      return address;
    }
  }
  return item_error(text, "not an IPv4 or IPv6 address");
}

std::string format_address(const st_addr& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (st_addr_is_v4(&address) != 0) {
    inet_ntop(AF_INET, address.bytes + 12, text.data(), text.size());
  } else {
    inet_ntop(AF_INET6, address.bytes, text.data(), text.size());
  }
  return text.data();
}

std::string format_endpoint(const st_addr& address, std::uint16_t port) {
  return st_addr_is_v4(&address) != 0 ? fmt::format("{}:{}", format_address(address), port)
                                      : fmt::format("[{}]:{}", format_address(address), port);
}

std::string format_cidr(const st_addr& address, std::uint8_t prefix) {
  const bool v4 = prefix >= 96 && st_addr_is_v4(&address) != 0;
  return fmt::format("{}/{}", format_address(address), v4 ? prefix - 96 : prefix);
}

}  // namespace sidetrack::policy
