// SPDX-License-Identifier: Apache-2.0
// SocketAddress: an IPv6 or IPv4-mapped address with a TCP port, as the engine compares, hashes and
// connects to it. Plain values; conversions to and from the kernel's sockaddr.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "sidetrack/abi/types.h"

namespace sidetrack::engine {

struct SocketAddress {
  st_addr address{};
  std::uint16_t port = 0;  // host order
};

[[nodiscard]] bool operator==(const SocketAddress& left, const SocketAddress& right);

struct SocketAddressHash {
  [[nodiscard]] std::size_t operator()(const SocketAddress& value) const;
};

// A sockaddr of the right family, with its length.
struct KernelAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  [[nodiscard]] const sockaddr* get() const;
};

[[nodiscard]] bool is_v4(const SocketAddress& value);
[[nodiscard]] SocketAddress from_kernel(const sockaddr_in& value);
[[nodiscard]] SocketAddress from_kernel(const sockaddr_in6& value);
[[nodiscard]] KernelAddress to_kernel(const SocketAddress& value);
// "10.0.0.1:80", "[fd00::1]:80".
[[nodiscard]] std::string to_string(const SocketAddress& value);

}  // namespace sidetrack::engine
