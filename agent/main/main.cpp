// SPDX-License-Identifier: Apache-2.0
// sidetrack-agent: options, lock, then the event loop.
#include <fmt/format.h>

#include <csignal>
#include <exception>

#include <boost/asio/io_context.hpp>

#include "agent/main/agent.h"
#include "agent/main/cgroups.h"
#include "agent/main/leave.h"
#include "agent/main/options.h"
#include "agent/main/standby.h"
#include "agent/main/traces.h"
#include "agent/main/uninstall.h"
#include "agent/selftest/self_test.h"
#include "sidetrack/cgroup/process_cgroup.h"
#include "sidetrack/cli/complain.h"
#include "sidetrack/cli/rights.h"
#include "sidetrack/cli/say.h"
#include "sidetrack/version.h"

namespace sidetrack::agent {

namespace {

constexpr const char* kProgram = "sidetrack-agent";

// SIG_BLOCK, SIG_UNBLOCK. One that comes before the agent can take it waits until it can: nobody
// who asks for a reload means to end it.
void hold_hangups(int how) {
  sigset_t hangup;
  sigemptyset(&hangup);
  sigaddset(&hangup, SIGHUP);
  pthread_sigmask(how, &hangup, nullptr);
}

enum ExitCode { kDone = 0, kRuntime = 1, kUsage = 2, kUnsupported = 3 };

int exit_code_of(const Error& error) {
  if (error.code == ErrorCode::kUnsupported) {
    return kUnsupported;
  }
  return error.code == ErrorCode::kInvalid ? kUsage : kRuntime;
}

int fail(const Error& error, const cli::Origins& origins = {}) {
  const Error explained = cli::with_rights(origins.explain(error),
                                           "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN");
  cli::complain(kProgram, explained.message);
  return exit_code_of(error);
}

int exit_code_of(const Result<void>& done, const Options& options) {
  return done ? int{kDone} : fail(done.error(), options.origins);
}

// What this start made goes, if it was not there before.
int fail_start(const Error& error, const Options& options, const Traces& traces) {
  traces.undo();
  return fail(error, options.origins);
}

int run(const Options& options, const Agent::Reload& reload) {
  start_log(options.log_level, options.log_format);
  if (const auto fits = check_start(options); !fits) {
    return fail(fits.error(), options.origins);
  }
  const Traces traces(options);
  auto lock = take_lock(options);
  if (!lock) {
    return fail(lock.error(), options.origins);
  }
  if (!*lock) {
    return kDone;
  }
  boost::asio::io_context context(1);
  auto agent = Agent::create(context, options, reload);
  if (!agent) {
    return fail_start(agent.error(), options, traces);
  }
  if (const auto started = (*agent)->start(); !started) {
    agent->reset();
    return fail_start(started.error(), options, traces);
  }
  hold_hangups(SIG_UNBLOCK);
  context.run();
  if (const auto failure = (*agent)->failure()) {
    agent->reset();
    return fail_start(*failure, options, traces);
  }
  if ((*agent)->was_removed()) {
    agent->reset();
    lock->reset();
    return exit_code_of(uninstall(options), options);
  }
  return kDone;
}

volatile std::sig_atomic_t g_signal = 0;

// What the self-test made is taken away at its end, also when a signal brings that about; a second
// one ends it at once.
void note_signals() {
  struct sigaction action {};
  action.sa_handler = [](int signal) { g_signal = signal; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    sigaction(signal, &action, nullptr);
  }
}

int self_test(const Options& options) {
  const auto dir = attach_dir(options);
  if (!dir) {
    return fail(dir.error(), options.origins);
  }
  note_signals();
  const auto report = selftest::run(
      {.cgroup_dir = *dir, .pin_dir = options.pin_dir, .netns = options.netns, .is_over = [] {
         return g_signal != 0;
       }});
  if (g_signal != 0) {
    constexpr int kSignalled = 128;  // as a shell shows it
    cli::complain(kProgram, fmt::format("ended by signal {}; what the self-test made is gone",
                                        int{g_signal}));
    return kSignalled + g_signal;
  }
  if (!report) {
    return fail(report.error(), options.origins);
  }
  cli::say(options.json ? selftest::to_json(*report) : selftest::to_table(*report));
  return report->passed() ? kDone : kRuntime;
}

int main_of(int argc, char** argv) {
  const auto options = parse_options(argc, argv);
  if (!options) {
    return fail(options.error());
  }
  const bool looks_at_cgroups =
      options->command != Command::kHelp && options->command != Command::kVersion;
  if (const auto joined = looks_at_cgroups ? cgroup::join_host_namespace() : Result<void>();
      !joined && joined.error().code != ErrorCode::kPermission) {
    return fail(joined.error());
  }
  if (options->command != Command::kRun) {
    hold_hangups(SIG_UNBLOCK);
  }
  switch (options->command) {
    case Command::kHelp:
      cli::say(help_text(options->help_of));
      return kDone;
    case Command::kVersion:
      cli::say(fmt::format("sidetrack-agent {}\n", version()));
      return kDone;
    case Command::kUninstall:
      return exit_code_of(uninstall(*options), *options);
    case Command::kLeave:
      return exit_code_of(leave(*options), *options);
    case Command::kSelfTest:
      return self_test(*options);
    case Command::kRun:
      return run(*options, [argc, argv] { return parse_options(argc, argv); });
  }
  return kUsage;
}

}  // namespace

}  // namespace sidetrack::agent

int main(int argc, char** argv) {
  sidetrack::agent::hold_hangups(SIG_BLOCK);
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return sidetrack::cli::end_with(sidetrack::agent::kProgram,
                                    sidetrack::agent::main_of(argc, argv));
  } catch (const std::exception& error) {
    sidetrack::cli::complain(sidetrack::agent::kProgram, error.what());
    return 1;
  }
}
