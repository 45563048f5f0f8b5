// SPDX-License-Identifier: Apache-2.0
// sidetrack-probe: what `helm test` and the tests in a cluster run in pods.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <exception>

#include "probe/check.h"
#include "probe/options.h"
#include "probe/serve.h"
#include "sidetrack/cli/complain.h"
#include "sidetrack/cli/say.h"
#include "sidetrack/version.h"

namespace sidetrack::probe {
namespace {

constexpr const char* kProgram = "sidetrack-probe";

int fail(const Error& error) {
  cli::complain(kProgram, error.message);
  return error.code == ErrorCode::kInvalid ? 2 : 1;
}

int main_of(const std::vector<std::string>& arguments) {
  const auto options = parse_options(arguments);
  if (!options) {
    return fail(options.error());
  }
  switch (options->command) {
    case Command::kHelp:
      cli::say(usage());
      return 0;
    case Command::kVersion:
      cli::say(fmt::format("sidetrack-probe {}\n", version()));
      return 0;
    case Command::kServe: {
      char name[256] = {};
      gethostname(name, sizeof(name) - 1);
      const auto served = serve(name, options->ports);
      return served ? 0 : fail(served.error());
    }
    case Command::kCheck: {
      const auto checked = check(*options);
      return checked ? 0 : fail(checked.error());
    }
  }
  return 2;
}

}  // namespace
}  // namespace sidetrack::probe

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return sidetrack::cli::end_with(sidetrack::probe::kProgram,
                                    sidetrack::probe::main_of({argv + 1, argv + argc}));
  } catch (const std::exception& error) {
    sidetrack::cli::complain(sidetrack::probe::kProgram, error.what());
    return 1;
  }
}
