// SPDX-License-Identifier: Apache-2.0
// The IP addresses of a network namespace: the proof that a namespace is the pod's that the API
// speaks of.
#pragma once

#include <string>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::pods {

// Those of all interfaces but loopback, as inet_ntop writes them. `netns_fd` is a namespace; a
// thread of its own enters it.
[[nodiscard]] Result<std::vector<std::string>> list_addresses(int netns_fd);

// Whether two texts are the same address, however written.
[[nodiscard]] bool same_address(const std::string& one, const std::string& other);

}  // namespace sidetrack::pods
