// SPDX-License-Identifier: Apache-2.0
// From the service compiler's routes to messages of the engine protocol. Pure.
#pragma once

#include "agent/policy/services.h"
#include "sidetrack/wire/engine.h"

namespace sidetrack::engines {

[[nodiscard]] bool same_route(const policy::ServiceRoute& a, const policy::ServiceRoute& b);

[[nodiscard]] wire::Endpoint wire_endpoint(const policy::SocketAddress& address);

// At most wire::kMaxEndpoints endpoints, an even choice of them.
[[nodiscard]] wire::Route route_message(const policy::ServiceRoute& route);

}  // namespace sidetrack::engines
