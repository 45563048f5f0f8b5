// SPDX-License-Identifier: Apache-2.0
// Which of its addresses a network namespace uses. Threads: these look at the namespace of the
// thread that calls.
#pragma once

#include <string>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::pods {

// Those of all interfaces but loopback, as inet_ntop writes them.
[[nodiscard]] Result<std::vector<std::string>> list_own_addresses();

// 169.254.0.0/16, fe80::/10.
[[nodiscard]] bool is_link_local(const std::string& address);

// The sources of what leaves by the default route, asked of the kernel: for IPv4, and for IPv6,
// where it depends on the destination, to a global and to a unique local address. None for what has
// no such route, no more than a link-local address to leave from, or no answer.
[[nodiscard]] std::vector<std::string> default_sources();

}  // namespace sidetrack::pods
