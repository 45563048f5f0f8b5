// SPDX-License-Identifier: Apache-2.0
// What the installer needs to know.
#pragma once

#include <filesystem>

#include "cni/install/conflist.h"

namespace sidetrack::cni::install {

struct Settings {
  std::filesystem::path conf_dir;   // --cni-conf-dir: where the runtime looks, as seen from here
  std::filesystem::path bin_dir;    // --cni-bin-dir: where it looks for plugins
  std::filesystem::path binary;     // --cni-binary: the plugin to be copied there
  std::filesystem::path cache_dir;  // --cache-dir: gets a copy of each conflist before it is edited
  // Paths as the host sees them. Its `type` is the plugin's file name.
  Entry entry{};
};

}  // namespace sidetrack::cni::install
