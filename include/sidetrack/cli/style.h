// SPDX-License-Identifier: Apache-2.0
// How command lines are read.
#pragma once

#include <boost/program_options/cmdline.hpp>

namespace sidetrack::cli {

// No abbreviations: what one stands for would change with every new option.
constexpr int kStyle = boost::program_options::command_line_style::default_style &
                       ~boost::program_options::command_line_style::allow_guessing;

}  // namespace sidetrack::cli
