// SPDX-License-Identifier: Apache-2.0
// The commands of sidetrackctl. Blocking; one thread.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "agent/ctl/format.h"
#include "agent/ctl/options.h"

namespace sidetrack::ctl {

inline constexpr int kExitFine = 0;
inline constexpr int kExitFindings = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitUnreachable = 3;

struct Streams {
  std::ostream& out;
  std::ostream& error;
  Painter painter;
};

// Runs options.command; returns the exit code.
[[nodiscard]] int run_command(const Options& options, const Streams& streams);

// `flows`, also with -f (commands.cpp hands over to these).
[[nodiscard]] int run_flows(const Options& options, const Streams& streams);
[[nodiscard]] int run_doctor(const Options& options, const Streams& streams);

using Renderer = std::function<std::string(const nlohmann::json&)>;
// Prints what the agent answered; where the list at the key is empty and no pod of the namespace
// that was asked for is on this node, says so, too. Returns the exit code.
[[nodiscard]] int show_list(const nlohmann::json& answer, const char* key, const Options& options,
                            const Streams& streams, const Renderer& render);
// Says so if there is no pod of the namespace that was asked for, if any; returns the exit code.
// The agent is asked for its pods unless it has just answered with them.
[[nodiscard]] int check_namespace(const nlohmann::json& answer, const Options& options,
                                  const Streams& streams);

// Prints the error and returns the exit code that goes with it.
[[nodiscard]] int fail(const Error& error, const Streams& streams);

// Unix time.
[[nodiscard]] double now_s();

[[nodiscard]] std::string admin_socket(const Options& options);

}  // namespace sidetrack::ctl
