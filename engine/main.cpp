// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <exception>
#include <string>
#include <vector>

#include "engine/daemon.h"
#include "engine/options.h"
#include "sidetrack/cgroup/process_cgroup.h"
#include "sidetrack/cli/complain.h"
#include "sidetrack/cli/say.h"
#include "sidetrack/log/log.h"
#include "sidetrack/version.h"

namespace {

constexpr const char* kProgram = "sidetrack-engine";

int run(const std::vector<std::string>& arguments) {
  using sidetrack::engine::Options;
  std::vector<std::string> environment;
  for (char** item = environ; *item != nullptr; ++item) {
    environment.emplace_back(*item);
  }
  const auto options = sidetrack::engine::parse_options(arguments, environment);
  if (!options) {
    sidetrack::cli::complain(kProgram, options.error().message);
    return 2;
  }
  switch (options->command) {
    case Options::Command::kHelp:
      sidetrack::cli::say(sidetrack::engine::usage());
      return 0;
    case Options::Command::kVersion:
      sidetrack::cli::say(fmt::format("sidetrack-engine {}\n", sidetrack::version()));
      return 0;
    case Options::Command::kRun:
      break;
  }
  sidetrack::start_log(options->log_level, options->log_format);
  if (const auto joined = sidetrack::cgroup::join_host_namespace(); !joined) {
    // Our own cgroup is on our container's mount, too.
    sidetrack::log_event(sidetrack::LogLevel::kDebug, "engine", "cgroup_namespace",
                         {{"detail", joined.error().message}});
  }
  return sidetrack::engine::run_daemon(*options);
}

}  // namespace

int main(int argc, char** argv) {
  // It has no configuration to read again, and to end would cut connections without a drain.
  std::signal(SIGHUP, SIG_IGN);
  try {
    return sidetrack::cli::end_with(kProgram, run({argv + 1, argv + argc}));
  } catch (const std::exception& error) {
    sidetrack::cli::complain(kProgram, error.what());
    return 1;
  }
}
