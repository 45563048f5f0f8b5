// SPDX-License-Identifier: Apache-2.0
// Whether the fast path is on: the node's switch, and the self-test.
#include <fmt/format.h>

#include <filesystem>
#include <utility>

#include "agent/main/fast_path.h"
#include "sidetrack/log/log.h"

namespace sidetrack::agent {

namespace {

// Where demoted workloads are remembered; nowhere if the folder cannot be made.
std::string workloads_file(const std::string& cache_dir) {
  std::error_code error;
  std::filesystem::create_directories(cache_dir, error);
  if (error) {
    log_event(LogLevel::kWarn, "adopt", "no_cache_dir",
              {{"path", cache_dir}, {"detail", error.message()}});
    return "";
  }
  return cache_dir + "/fast-path-workloads.json";
}

}  // namespace

std::string problem_after(const Result<selftest::Report>& report, const FastPathOptions& options) {
  if (!report) {
    return "self_test: " + report.error().message;
  }
  if (!report->passed()) {
    return "self_test: " + report->problem();
  }
  return report->charges_reader || options.uncharged ? "" : "uncharged";
}

Result<void> FastPath::forget_workload(const std::string& workload) {
  if (const auto pod = pods_.demoted_of(workload)) {
    return make_error(
        ErrorCode::kBusy,
        fmt::format("pod {} of {} runs, and was itself seen not to suit the fast path: "
                    "delete it first, its successor can then begin anew",
                    *pod, workload));
  }
  return workloads_.forget(workload);
}

std::string FastPath::text_of(st_fast_reason reason) const {
  if (reason != ST_FAST_SELF_TEST || on()) {
    return std::string(adopt::text_of(reason));
  }
  return problem_ == kSelfTestRunning ? "the self-test still runs"
                                      : "the self-test does not allow it on this kernel";
}

std::string FastPath::find_problem() const {
  if (!settings_.on) {
    return "node_off";
  }
  if (settings_.sentinel == dataplane::Sentinel::kOff) {
    return "no_sentinel";
  }
  return "";  // what the programs lack the self-test finds, too, and says so
}

Result<void> FastPath::enable(bool charges_reader) {
  st_fast_config config{};
  config.enabled = 1;
  config.window = settings_.window;
  config.round_trips = settings_.round_trips;
  config.loopback = settings_.loopback ? 1 : 0;
  config.charges_reader = charges_reader ? 1 : 0;
  return dataplane_.set_fast_config(config);
}

Result<void> FastPath::start() {
  const auto has_adopted = dataplane_.has_adopted();
  ST_TRY(has_adopted);
  const auto adopted = dataplane_.adopted();
  ST_TRY(adopted);
  const auto begun = begin(*has_adopted);
  // After the settings, which are applied to what is known: no pod is yet, and all would be off.
  adoption_.restore(*adopted, adopt::Clock::now());
  return begun;
}

Result<void> FastPath::begin(bool has_adopted) {
  const auto now = adopt::Clock::now();
  problem_ = find_problem();
  reason_ = settings_.on ? ST_FAST_NO_SENTINEL : ST_FAST_NODE_OFF;
  stop_watching();  // an earlier agent's; not while something is adopted
  watching_ = false;
  // Where it is off the folder is not made; what is in it is known all the same.
  if (!workloads_.are_kept() && (problem_.empty() || std::filesystem::exists(options_.cache_dir))) {
    workloads_.keep_in(workloads_file(options_.cache_dir));
  }
  if (problem_.empty() && has_adopted) {
    const auto watching = watch();
    problem_ = watching ? "" : watching.error().message;
  }
  if (problem_.empty()) {
    problem_ = kSelfTestRunning;
    reason_ = ST_FAST_SELF_TEST;
    const auto started = start_self_test();
    if (started) {
      // What is adopted by an earlier agent has passed one; nothing more is until this one passes.
      adoption_.set_settings({.enabled = has_adopted, .probation = settings_.probation}, now);
      return {};
    }
    problem_ = started.error().message;
  }
  turn_off(problem_, reason_);
  watching_ = has_adopted;
  return dataplane_.disable_fast_path();
}

void FastPath::set_switch(const FastPathOptions& wanted) {
  if (wanted.on == settings_.on && wanted.uncharged == settings_.uncharged) {
    return;
  }
  settings_.on = wanted.on;
  settings_.uncharged = wanted.uncharged;
  if (auto done = follow_switch(); !done) {
    log_event(LogLevel::kError, "adopt", "switch_failed", {{"detail", done.error().message}});
  }
}

Result<void> FastPath::follow_switch() {
  if (!settings_.on) {
    turn_off(find_problem(), ST_FAST_NODE_OFF);
    return dataplane_.disable_fast_path();
  }
  if (report_) {
    on_self_test(*report_);  // of this very kernel
    return {};
  }
  if (testing_) {
    problem_ = kSelfTestRunning;
    reason_ = ST_FAST_SELF_TEST;
    return {};
  }
  const auto has_adopted = dataplane_.has_adopted();
  ST_TRY(has_adopted);
  return begin(*has_adopted);
}

// In a namespace that the kernel is told of before: its connections are nobody's to ask about.
Result<void> FastPath::start_self_test() {
  auto netns = netns_.make();
  ST_TRY(netns);
  ST_TRY(kernel_.add_guest(netns->cookie));
  const auto forget = [this, cookie = netns->cookie] {
    if (auto gone = kernel_.remove_guest(cookie); !gone) {
      log_event(LogLevel::kWarn, "adopt", "row_stays",
                {{"netns_cookie", cookie}, {"detail", gone.error().message}});
    }
  };
  auto started = self_test_.start({.cgroup_dir = cgroup_dir_, .pin_dir = options_.pin_dir},
                                  netns->fd, [this, forget](const auto& report) {
                                    forget();
                                    testing_ = false;
                                    // What could not be run says nothing of this kernel.
                                    report_ = report ? std::optional(*report) : std::nullopt;
                                    if (settings_.on) {
                                      on_self_test(report);
                                    }
                                  });
  testing_ = started.has_value();
  if (!started) {
    forget();
  }
  return started;
}

void FastPath::turn_off(std::string problem, st_fast_reason reason) {
  problem_ = std::move(problem);
  reason_ = reason;
  log_event(LogLevel::kWarn, "adopt", "off", {{"detail", problem_}});
  adoption_.set_settings({.enabled = false, .probation = settings_.probation}, adopt::Clock::now());
  stop_watching();
}

void FastPath::on_self_test(const Result<selftest::Report>& report) {
  problem_ = problem_after(report, settings_);
  const auto written = on() ? enable(report->charges_reader) : dataplane_.disable_fast_path();
  if (!written) {
    problem_ = written.error().message;
  }
  if (!on()) {
    turn_off(problem_, ST_FAST_SELF_TEST);
    return;
  }
  adoption_.set_settings({.enabled = true, .probation = settings_.probation}, adopt::Clock::now());
  log_event(LogLevel::kInfo, "adopt", "on", {{"charges_reader", report->charges_reader}});
}

}  // namespace sidetrack::agent
