// SPDX-License-Identifier: Apache-2.0
// The version of this build, as programs print it. Its text is in one source file, so that another
// one costs no more than to compile that.
#pragma once

#include <string>

namespace sidetrack {

[[nodiscard]] const std::string& version();

}  // namespace sidetrack
