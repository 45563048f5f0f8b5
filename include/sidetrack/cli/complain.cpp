// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/cli/complain.h"

#include <cstdio>

namespace sidetrack::cli {

void complain(std::string_view program, std::string_view message) noexcept {
  static_cast<void>(std::fprintf(stderr, "%.*s: %.*s\n", static_cast<int>(program.size()),
                                 program.data(), static_cast<int>(message.size()), message.data()));
}

}  // namespace sidetrack::cli
