// SPDX-License-Identifier: Apache-2.0
// The names, defaults and one-line texts of the agent's options. What they mean: options.h.
#pragma once

#include <string>

#include <boost/program_options/options_description.hpp>

#include "agent/main/options.h"

namespace sidetrack::agent {

// Of all commands.
[[nodiscard]] boost::program_options::options_description common_options();
// Of one command alone.
[[nodiscard]] boost::program_options::options_description options_of(Command command);
[[nodiscard]] boost::program_options::options_description every_option();

}  // namespace sidetrack::agent
