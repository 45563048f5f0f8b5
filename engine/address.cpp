// SPDX-License-Identifier: Apache-2.0
#include "engine/address.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <cstring>
#include <string_view>

namespace sidetrack::engine {

bool operator==(const SocketAddress& left, const SocketAddress& right) {
  return left.port == right.port &&
         std::memcmp(left.address.bytes, right.address.bytes, sizeof left.address.bytes) == 0;
}

std::size_t SocketAddressHash::operator()(const SocketAddress& value) const {
  char key[sizeof value.address.bytes + sizeof value.port];
  std::memcpy(key, value.address.bytes, sizeof value.address.bytes);
  std::memcpy(key + sizeof value.address.bytes, &value.port, sizeof value.port);
  return std::hash<std::string_view>{}(std::string_view(key, sizeof key));
}

const sockaddr* KernelAddress::get() const {
  return reinterpret_cast<const sockaddr*>(&storage);
}

bool is_v4(const SocketAddress& value) {
  static constexpr unsigned char kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(value.address.bytes, kMapped, sizeof kMapped) == 0;
}

SocketAddress from_kernel(const sockaddr_in& value) {
  SocketAddress result;
  result.address.bytes[10] = 0xff;
  result.address.bytes[11] = 0xff;
  std::memcpy(result.address.bytes + 12, &value.sin_addr, 4);
  result.port = ntohs(value.sin_port);
  return result;
}

SocketAddress from_kernel(const sockaddr_in6& value) {
  SocketAddress result;
  std::memcpy(result.address.bytes, &value.sin6_addr, sizeof result.address.bytes);
  result.port = ntohs(value.sin6_port);
  return result;
}

KernelAddress to_kernel(const SocketAddress& value) {
  KernelAddress result;
  if (is_v4(value)) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(value.port);
    std::memcpy(&v4.sin_addr, value.address.bytes + 12, 4);
    std::memcpy(&result.storage, &v4, sizeof v4);
    result.size = sizeof v4;
  } else {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(value.port);
    std::memcpy(&v6.sin6_addr, value.address.bytes, sizeof value.address.bytes);
    std::memcpy(&result.storage, &v6, sizeof v6);
    result.size = sizeof v6;
  }
  return result;
}

std::string to_string(const SocketAddress& value) {
  char text[INET6_ADDRSTRLEN] = {};
  if (is_v4(value)) {
    inet_ntop(AF_INET, value.address.bytes + 12, text, sizeof text);
    return fmt::format("{}:{}", text, value.port);
  }
  inet_ntop(AF_INET6, value.address.bytes, text, sizeof text);
  return fmt::format("[{}]:{}", text, value.port);
}

}  // namespace sidetrack::engine
