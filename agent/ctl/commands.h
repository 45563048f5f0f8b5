// SPDX-License-Identifier: Apache-2.0
// The commands of sidetrackctl. Blocking; one thread.
#pragma once

#include <iosfwd>

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

// Prints the error and returns the exit code that goes with it.
[[nodiscard]] int fail(const Error& error, const Streams& streams);

// Unix time.
[[nodiscard]] double now_s();

[[nodiscard]] std::string admin_socket(const Options& options);

}  // namespace sidetrack::ctl
