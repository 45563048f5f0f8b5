// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <fmt/format.h>

#include <array>
#include <charconv>
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

std::vector<st_addr> parse_addresses(const std::vector<std::string>& texts) {
  std::vector<st_addr> addresses;
  for (const std::string& text : texts) {
    if (const auto address = parse_address(text)) {
      addresses.push_back(*address);
    }
  }
  return addresses;
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

Result<SocketAddress> parse_endpoint(std::string_view text) {
  const Error wrong = item_error(text, "ADDRESS:PORT is meant, [ADDRESS]:PORT for IPv6");
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return wrong;
  }
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  const auto address = parse_address(host);
  if (!address || (bracketed && host.find(':') == std::string_view::npos)) {
    return wrong;
  }
  const std::string_view digits = text.substr(colon + 1);
  if (!bracketed && host.find(':') != std::string_view::npos) {
    return item_error(text, fmt::format("an IPv6 address needs brackets: [{}]:{}", host, digits));
  }
  SocketAddress result{.address = *address};
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), result.port);
  if (error != std::errc() || end != digits.data() + digits.size() || result.port == 0) {
    return item_error(text, "the port must be 1 to 65535");
  }
  return result;
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
