// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "agent/ctl/commands.h"
#include "agent/ctl/options.h"
#include "sidetrack/cli/say.h"
#include "sidetrack/version.h"

namespace {

using namespace sidetrack::ctl;  // NOLINT(google-build-using-namespace): this is the program of
                                 // that namespace

Painter painter_for(const Options& options) {
  const char* no_color = std::getenv("NO_COLOR");
  const bool plain = options.no_colour || (no_color != nullptr && *no_color != '\0') ||
                     ::isatty(STDOUT_FILENO) == 0;
  return Painter(plain ? Painter::Mode::kPlain : Painter::Mode::kColour);
}

int run(const std::vector<std::string>& arguments) {
  const auto options = parse_options(arguments);
  if (!options) {
    std::cerr << "sidetrackctl: " << printable(options.error().message) << "\n";
    return kExitUsage;
  }
  if (options->wish == Wish::kHelp) {
    std::cout << help_text(options->command);
    return kExitFine;
  }
  if (options->wish == Wish::kVersion) {
    std::cout << "sidetrackctl " << sidetrack::version() << "\n";
    return kExitFine;
  }
  return run_command(*options, Streams{std::cout, std::cerr, painter_for(*options)});
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return sidetrack::cli::end_with("sidetrackctl", run({argv + 1, argv + argc}));
  } catch (const std::exception& error) {
    std::cerr << "sidetrackctl: " << error.what() << "\n";
    return kExitFindings;
  }
}
