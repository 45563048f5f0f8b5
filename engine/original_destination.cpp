// SPDX-License-Identifier: Apache-2.0
#include "engine/original_destination.h"

#include <sys/socket.h>

namespace sidetrack::engine {

std::optional<SocketAddress> KernelOriginalDestination::of(int fd,
                                                           const SocketAddress& listener) const {
  if (is_v4(listener)) {
    sockaddr_in answer{};
    socklen_t size = sizeof answer;
    if (::getsockopt(fd, SOL_IP, ST_SO_ORIGINAL_DST, &answer, &size) != 0 ||
        answer.sin_family != AF_INET) {
      return std::nullopt;
    }
    return from_kernel(answer);
  }
  sockaddr_in6 answer{};
  socklen_t size = sizeof answer;
  if (::getsockopt(fd, SOL_IPV6, ST_SO_ORIGINAL_DST, &answer, &size) != 0 ||
      answer.sin6_family != AF_INET6) {
    return std::nullopt;
  }
  return from_kernel(answer);
}

}  // namespace sidetrack::engine
