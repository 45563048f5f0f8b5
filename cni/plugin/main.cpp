// SPDX-License-Identifier: Apache-2.0
// sidetrack-cni: a chained CNI plugin that tells the agent of a pod's network namespace before the
// pod's first process runs (docs/cni.md).
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

#include "cni/plugin/answer.h"
#include "cni/plugin/plugin.h"
#include "sidetrack/version.h"

namespace {

using namespace sidetrack::cni::plugin;

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// What libraries throw (no memory) is an answer, too.
Outcome invoke(const Environment& environment, Clock::time_point started) {
  try {
    return run(environment, STDIN_FILENO, started);
  } catch (const std::exception& error) {
    if (environment.command == "DEL") {
      return {.exit_status = 0, .note = error.what()};
    }
    return {.exit_status = 1,
            .output = error_text("", {kInternal, error.what(), "run `sidetrackctl doctor`"}),
            .note = error.what()};
  }
}

// Where nobody can hear it, the exit status says it.
void complain(const std::string& note) {
  static_cast<void>(write_all(STDERR_FILENO, "sidetrack-cni: " + note + "\n"));
}

constexpr std::string_view kHelp =
    "sidetrack-cni is a CNI plugin: a container runtime calls it with CNI_COMMAND and a network\n"
    "configuration on stdin. It stands last in a conflist, where sidetrack-agent puts it.\n"
    "sidetrack-cni --version prints its version.\n";

}  // namespace

int main(int argc, char** argv) {
  const Clock::time_point started = Clock::now();
  // A runtime that is gone is an error of write().
  std::signal(SIGPIPE, SIG_IGN);
  if (argc > 1) {
    const std::string_view argument = argv[1];
    const bool version = argument == "--version";
    const auto wrote =
        write_all(STDOUT_FILENO,
                  version ? "sidetrack-cni " + sidetrack::version() + "\n" : std::string(kHelp));
    if (!version && argument != "--help") {
      return 2;
    }
    return wrote ? 0 : 1;
  }
  const Outcome outcome = invoke({.command = variable("CNI_COMMAND"),
                                  .container_id = variable("CNI_CONTAINERID"),
                                  .netns = variable("CNI_NETNS"),
                                  .ifname = variable("CNI_IFNAME"),
                                  .args = variable("CNI_ARGS")},
                                 started);
  if (!outcome.note.empty()) {
    complain(outcome.note);
    if (!outcome.log_file.empty()) {
      if (const auto logged = append_line(outcome.log_file, outcome.note); !logged) {
        complain("logFile " + logged.error().message);
      }
    }
  }
  return write_all(STDOUT_FILENO, outcome.output) ? outcome.exit_status : 1;
}
