// SPDX-License-Identifier: Apache-2.0
// The command line of sidetrackctl as a value. No I/O.
#pragma once

#include <string>
#include <vector>

#include "agent/ctl/output.h"
#include "sidetrack/result.h"

namespace sidetrack::ctl {

enum class Wish { kCommand, kHelp, kVersion };

struct Options {
  Wish wish = Wish::kCommand;
  std::string command;  // for kHelp: of which command, empty = in general
  std::vector<std::string> arguments;
  std::string state_dir = "/run/sidetrack";
  std::string pin_dir = "/sys/fs/bpf/sidetrack";
  Format format = Format::kTable;
  bool no_colour = false;
  std::string namespace_name;
  bool follow = false;
  double since_s = -1;  // this long ago; negative = everything kept
};

// Arguments without the program's name. kInvalid: the message says what is wrong with them.
[[nodiscard]] Result<Options> parse_options(const std::vector<std::string>& arguments);

// The help of one command, or with "" the list of all; nothing for an unknown one.
[[nodiscard]] std::string help_text(const std::string& command);

}  // namespace sidetrack::ctl
