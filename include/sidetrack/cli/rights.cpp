// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/cli/rights.h"

#include <unistd.h>

namespace sidetrack::cli {

Error with_rights(Error error, std::string_view capabilities) {
  if (error.code != ErrorCode::kPermission || error.message.find("CAP_") != std::string::npos) {
    return error;
  }
  error.message += ::geteuid() == 0
                       ? "; root's capabilities are cut here: it needs " + std::string(capabilities)
                       : "; run it as root, not as user " + std::to_string(::geteuid()) +
                             " (it needs " + std::string(capabilities) + ")";
  return error;
}

}  // namespace sidetrack::cli
