// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/registry.h"

#include <algorithm>
#include <array>

namespace sidetrack::lab {

Error fetch_error(const std::string& output) {
  constexpr std::array kSigns = {// pip
                                 "connection broken", "Could not fetch URL", "NewConnectionError",
                                 "Temporary failure in name resolution", "Max retries exceeded",
                                 // cargo
                                 "network error", "Could not resolve host", "Could not connect",
                                 "failed to query replaced source", "Timeout was reached"};
  const bool away = std::any_of(kSigns.begin(), kSigns.end(), [&output](const char* sign) {
    return output.find(sign) != std::string::npos;
  });
  return make_error(away ? ErrorCode::kNotFound : ErrorCode::kInternal, output);
}

}  // namespace sidetrack::lab
