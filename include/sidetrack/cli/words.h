// SPDX-License-Identifier: Apache-2.0
// How command lines are read.
#pragma once

#include <string>
#include <vector>

#include <boost/program_options/cmdline.hpp>
#include <boost/program_options/parsers.hpp>

namespace sidetrack::cli {

// No abbreviations: what one stands for would change with every new option. Throws as
// boost::program_options does. `options` must live until the result was stored.
inline boost::program_options::parsed_options parse_words(
    const std::vector<std::string>& words,
    const boost::program_options::options_description& options,
    const boost::program_options::positional_options_description& positional) {
  namespace style = boost::program_options::command_line_style;
  return boost::program_options::command_line_parser(words)
      .options(options)
      .positional(positional)
      .style(style::default_style & ~style::allow_guessing)
      .run();
}

}  // namespace sidetrack::cli
