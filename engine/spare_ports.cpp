// SPDX-License-Identifier: Apache-2.0
#include "engine/spare_ports.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "engine/upstream.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engine {
namespace {

constexpr std::uint32_t kLastPort = 65535;
constexpr std::uint32_t kFewest = 512;  // fewer above the range are not worth while
constexpr std::uint32_t kBelow = 4096;
constexpr std::uint32_t kLowest = 20000;  // under it are the ports that servers like
constexpr int kTries = 32;                // ports that live connections or listeners hold

SparePorts spare_ports_here() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  // Follows the netns of the thread that opens it; IPv6 has no range of its own.
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> low >> high;
  return low == 0 || high < low ? SparePorts{} : spare_ports_beside(low, high);
}

// The port must be shareable, or its own TIME_WAIT would keep the next bind() away.
bool bind_to(int fd, bool is_v4, std::uint16_t port) {
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  SocketAddress any{};
  any.port = port;
  if (is_v4) {
    any.address.bytes[10] = any.address.bytes[11] = 0xff;
  }
  const KernelAddress address = to_kernel(any);
  return ::bind(fd, address.get(), address.size) == 0;
}

}  // namespace

SparePorts spare_ports_beside(std::uint32_t range_low, std::uint32_t range_high) {
  if (range_high + kFewest <= kLastPort) {
    return {.low = range_high + 1, .high = kLastPort};
  }
  const std::uint32_t low = std::max(kLowest, range_low - std::min(range_low, kBelow));
  return {.low = low, .high = range_low - 1};
}

int connect_from_spare_port(const SocketAddress& destination, std::uint32_t random) {
  const SparePorts ports = spare_ports_here();
  if (ports.low > ports.high) {
    return -1;
  }
  const std::uint32_t count = ports.high - ports.low + 1;
  const KernelAddress address = to_kernel(destination);
  const int family = address.get()->sa_family;
  for (std::uint32_t i = 0; i < kTries; ++i) {
    UniqueFd fd(make_upstream_socket(family));
    if (!fd.valid()) {
      return -1;
    }
    const auto port = static_cast<std::uint16_t>(ports.low + (random + i) % count);
    if (bind_to(fd.get(), family == AF_INET, port) &&
        (::connect(fd.get(), address.get(), address.size) == 0 || errno == EINPROGRESS)) {
      return fd.release();
    }
    if (errno != EADDRINUSE && errno != EADDRNOTAVAIL) {
      return -1;
    }
  }
  return -1;
}

}  // namespace sidetrack::engine
