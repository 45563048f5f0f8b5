// SPDX-License-Identifier: Apache-2.0
// Workloads whose pods do not suit the fast path: what the sentinel saw in one replica holds for
// the next. Kept in a file, so that it survives the agent.
#pragma once

#include <map>
#include <string>

#include "sidetrack/abi/fast.h"
#include "sidetrack/result.h"

namespace sidetrack::adopt {

class Workloads {
 public:
  // `file`: where they are kept; empty = nowhere. One that cannot be read is reported and begun
  // anew.
  explicit Workloads(std::string file);

  // ST_FAST_NONE = nothing is against it.
  [[nodiscard]] st_fast_reason demoted(const std::string& workload) const;
  void demote(const std::string& workload, st_fast_reason reason);
  [[nodiscard]] const std::map<std::string, st_fast_reason>& all() const { return demoted_; }

 private:
  void load();
  [[nodiscard]] Result<void> save() const;

  std::string file_;
  std::map<std::string, st_fast_reason> demoted_;
};

}  // namespace sidetrack::adopt
