// SPDX-License-Identifier: Apache-2.0
// What a start makes before it is known whether it can go on: the state folder, the engine's cgroup
// and pins. One that fails changes nothing, so they are taken back.
#pragma once

#include <string>
#include <vector>

#include "agent/main/options.h"

namespace sidetrack::agent {

class Traces {
 public:
  // Before anything is made: notes what is missing.
  explicit Traces(const Options& options);
  // Removes what was missing and is there now, if nothing else is in it.
  void undo() const;

 private:
  std::string lock_file_;             // empty: it was there
  std::string pin_dir_;               // as well
  std::vector<std::string> folders_;  // the deepest first
};

}  // namespace sidetrack::agent
