// SPDX-License-Identifier: Apache-2.0
// Limits that the protocols of this folder share.
#pragma once

#include <cstddef>

namespace sidetrack::wire {

inline constexpr std::size_t kMaxText = 256;  // bytes of a name; reasons are cut to it

}  // namespace sidetrack::wire
