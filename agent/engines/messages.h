// SPDX-License-Identifier: Apache-2.0
// Between the agent's types and the messages of the engine protocol. Pure.
#pragma once

#include <vector>

#include "agent/engines/engine_server.h"
#include "agent/policy/services.h"
#include "sidetrack/unique_fd.h"
#include "sidetrack/wire/engine.h"

namespace sidetrack::engines {

[[nodiscard]] wire::Endpoint wire_endpoint(const policy::SocketAddress& address);

// At most wire::kMaxEndpoints endpoints, an even choice of them.
[[nodiscard]] wire::Route route_message(const policy::ServiceRoute& route);

[[nodiscard]] wire::Welcome welcome_message(const Welcome& welcome);

[[nodiscard]] PodListeners listeners_of(const wire::Listening& message);

// A list of one: descriptors cannot be copied out of an initializer list.
[[nodiscard]] std::vector<UniqueFd> single(UniqueFd fd);

}  // namespace sidetrack::engines
