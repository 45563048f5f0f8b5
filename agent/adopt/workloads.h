// SPDX-License-Identifier: Apache-2.0
// Workloads whose pods do not suit the fast path: what the sentinel saw in one replica holds for
// the next. Kept in a file, so that it survives the agent.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "sidetrack/abi/fast.h"
#include "sidetrack/result.h"

namespace sidetrack::adopt {

class Workloads {
 public:
  Workloads() = default;  // they are kept nowhere
  explicit Workloads(std::string file) { keep_in(std::move(file)); }

  // From now on, and those of that file count. One that cannot be read is reported and begun anew;
  // empty: nowhere.
  void keep_in(std::string file);
  [[nodiscard]] bool are_kept() const { return !file_.empty(); }

  // ST_FAST_NONE = nothing is against it.
  [[nodiscard]] st_fast_reason demoted(const std::string& workload) const;
  void demote(const std::string& workload, st_fast_reason reason);
  // Its next replica is observed anew. kNotFound: it is not demoted. Where the file cannot be
  // written it stays demoted.
  Result<void> forget(const std::string& workload);
  [[nodiscard]] const std::map<std::string, st_fast_reason>& all() const { return demoted_; }

 private:
  void load();
  [[nodiscard]] Result<void> save() const;

  std::string file_;
  std::map<std::string, st_fast_reason> demoted_;
};

}  // namespace sidetrack::adopt
