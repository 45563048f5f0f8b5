// SPDX-License-Identifier: Apache-2.0
#include "agent/engines/messages.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace sidetrack::engines {

wire::Endpoint wire_endpoint(const policy::SocketAddress& address) {
  return {.address = address.address, .port = address.port};
}

wire::Route route_message(const policy::ServiceRoute& route) {
  wire::Route message{.front = wire_endpoint(route.front),
                      .service = route.service.substr(0, wire::kMaxText),
                      .endpoints = {},
                      .affinity_timeout_s = route.affinity_timeout_s};
  const std::size_t all = route.endpoints.size();
  const std::size_t count = std::min(all, wire::kMaxEndpoints);
  message.endpoints.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    message.endpoints.push_back(wire_endpoint(route.endpoints[i * all / count]));
  }
  return message;
}

PodListeners listeners_of(const wire::Listening& message) {
  PodListeners listeners;
  const auto convert = [](const wire::Listener& listener) {
    return Listener{.port = listener.port, .cookie = listener.cookie};
  };
  std::transform(message.v4.begin(), message.v4.end(), std::back_inserter(listeners.v4), convert);
  std::transform(message.v6.begin(), message.v6.end(), std::back_inserter(listeners.v6), convert);
  return listeners;
}

wire::Welcome welcome_message(const Welcome& welcome) {
  return {.version = wire::kEngineProtocolVersion,
          .slot = welcome.slot,
          .cgroup_id = welcome.cgroup_id,
          .listener_port_low = welcome.listener_port_low,
          .listener_port_high = welcome.listener_port_high,
          .listeners_per_pod = welcome.listeners_per_pod};
}

std::vector<UniqueFd> single(UniqueFd fd) {
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(fd));
  return fds;
}

}  // namespace sidetrack::engines
