// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/version.h"

namespace sidetrack {

const std::string& version() {
  static const std::string text = ST_VERSION;
  return text;
}

}  // namespace sidetrack
