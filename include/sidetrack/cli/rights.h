// SPDX-License-Identifier: Apache-2.0
// What to tell a user whose process lacks a right.
#pragma once

#include <string>
#include <string_view>

#include "sidetrack/result.h"

namespace sidetrack::cli {

// The error, and for kPermission what to do about it: run the program as root, or, where it is,
// give it back these capabilities. One that says so already stays as it is.
[[nodiscard]] Error with_rights(Error error, std::string_view capabilities);

}  // namespace sidetrack::cli
