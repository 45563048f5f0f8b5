// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/cli/say.h"

#include <cstdio>

#include "sidetrack/cli/complain.h"

namespace sidetrack::cli {

void say(std::string_view text) noexcept {
  static_cast<void>(std::fwrite(text.data(), 1, text.size(), stdout));
}

int end_with(std::string_view program, int status) noexcept {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) {
    return status;
  }
  complain(program, "the output could not be written");
  return status == 0 ? 1 : status;
}

}  // namespace sidetrack::cli
