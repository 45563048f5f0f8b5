// SPDX-License-Identifier: Apache-2.0
// The program of programs/fast_rust, which stands on tokio.
#pragma once

#include <string>

#include "sidetrack/result.h"

namespace sidetrack::lab {

// Its path, from a cache folder into which cargo builds it. kNotFound: there is no cargo, or what
// it needs is not here and the package registry cannot be reached.
Result<std::string> build_tokio_program();

}  // namespace sidetrack::lab
