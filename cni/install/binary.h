// SPDX-License-Identifier: Apache-2.0
// The plugin's copy in the folder where the runtime looks for plugins. Blocking; one thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "cni/install/settings.h"
#include "sidetrack/result.h"

namespace sidetrack::cni::install {

class Binary {
 public:
  // Makes the copy equal to the original (mode 0755, replaced as a whole: the old one may be
  // running). Cheap while nobody touched the copy.
  [[nodiscard]] Result<void> ensure(const Settings& settings);

 private:
  struct Identity {
    ino_t inode = 0;
    off_t size = 0;
    std::int64_t changed_ns = 0;
    bool operator==(const Identity&) const = default;
  };
  static std::optional<Identity> identity_of(const std::filesystem::path& path);

  std::optional<Identity> seen_;
};

}  // namespace sidetrack::cni::install
