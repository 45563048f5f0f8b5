// SPDX-License-Identifier: Apache-2.0
// One invocation of the plugin, from its environment and stdin to what it prints and its exit
// status. Keeps no state and needs nothing but the agent's socket. DEL always succeeds, within a
// second. One thread.
#pragma once

#include <string>

#include "cni/plugin/request.h"
#include "cni/plugin/system.h"

namespace sidetrack::cni::plugin {

struct Outcome {
  int exit_status = 0;
  std::string output;    // for stdout: a result, an error, or nothing
  std::string note;      // for stderr and the log: what a person should know; may be empty
  std::string log_file;  // where else the note goes; empty: nowhere
};

// `input_fd`: stdin. `started`: when the time-box began.
[[nodiscard]] Outcome run(const Environment& environment, int input_fd, Clock::time_point started);

}  // namespace sidetrack::cni::plugin
