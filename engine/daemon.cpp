// SPDX-License-Identifier: Apache-2.0
#include "engine/daemon.h"

#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "engine/agent_link.h"
#include "engine/engine.h"
#include "engine/heartbeat.h"
#include "engine/http_server.h"
#include "engine/metrics.h"
#include "engine/original_destination.h"
#include "sidetrack/log/log.h"
#include "sidetrack/version.h"

namespace sidetrack::engine {
namespace {

using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kDrainPoll(20);
// How long the agent gets to send new connections elsewhere before the listeners close under them.
constexpr std::chrono::milliseconds kHandover(1000);

std::uint64_t raise_files_limit() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  ::getrlimit(RLIMIT_NOFILE, &files);
  return files.rlim_cur;
}

class Daemon {
 public:
  explicit Daemon(const Options& options)
      : options_(options),
        engine_(EngineSettings{.threads = options.threads, .buffer_bytes = options.buffer_bytes},
                original_destination_),
        heartbeat_(engine_, raise_files_limit()),
        signals_(context_, SIGTERM, SIGINT),
        timer_(context_),
        agent_(context_,
               AgentLink::Settings{.socket_path = options.state_dir + "/engine.sock",
                                   .build = version()},
               engine_, heartbeat_, [this](const Error& error) { fail(error); }) {}

  int run() {
    std::signal(SIGPIPE, SIG_IGN);
    if (const auto listening = start_http(); !listening) {
      fail(listening.error());
      return exit_code_;
    }
    if (const auto started = engine_.start(); !started) {
      fail(started.error());
      return exit_code_;
    }
    log_event(LogLevel::kInfo, "engine", "started",
              {{"version", version()},
               {"threads", std::to_string(options_.threads)},
               {"files_limit", std::to_string(heartbeat_.files_limit())}});
    wait_for_signal();
    agent_.start();
    context_.run();
    log_event(LogLevel::kInfo, "engine", "stopped",
              {{"connections_cut", std::to_string(engine_.totals().connections)}});
    return exit_code_;
  }

 private:
  void fail(const Error& error) {
    log_event(LogLevel::kError, "engine", "failed", {{"reason", error.message}});
    exit_code_ = error.code == ErrorCode::kInvalid ? 2 : 1;
    context_.stop();
  }

  void wait_for_signal() {
    signals_.async_wait([this](const error_code& error, int) {
      if (error) {
        return;
      }
      if (draining_) {
        context_.stop();
        return;
      }
      begin_drain();
      wait_for_signal();
    });
  }

  void begin_drain() {
    draining_ = true;
    drain_began_ = Clock::now();
    log_event(LogLevel::kInfo, "engine", "draining",
              {{"connections", std::to_string(engine_.totals().connections)}});
    agent_.drain();
    poll_drain();
  }

  void poll_drain() {
    const auto passed = Clock::now() - drain_began_;
    if (passed >= kHandover) {
      engine_.remove_all_pods();
    }
    const bool closed = engine_.pods().empty();
    if (passed >= options_.drain || (closed && engine_.totals().connections == 0)) {
      context_.stop();
      return;
    }
    timer_.expires_after(kDrainPoll);
    timer_.async_wait([this](const error_code& error) {
      if (!error) {
        poll_drain();
      }
    });
  }

  Result<void> start_http() {
    if (!options_.http) {
      return {};
    }
    http_ = std::make_unique<HttpServer>(
        context_, *options_.http,
        std::map<std::string, HttpHandler>{
            {"/healthz", [this] { return health(); }},
            {"/metrics", [this] { return HttpAnswer{.body = metrics()}; }}});
    return http_->start();
  }

  HttpAnswer health() const {
    return heartbeat_.healthy() ? HttpAnswer{.body = "ok\n"}
                                : HttpAnswer{.status = 503, .body = "a worker is stuck\n"};
  }

  std::string metrics() {
    return metrics_text(MetricsInput{.totals = engine_.totals(),
                                     .files_used = heartbeat_.files_used(),
                                     .files_limit = heartbeat_.files_limit(),
                                     .pods = engine_.pods().size(),
                                     .routes = engine_.routes().size(),
                                     .version = version()});
  }

  Options options_;
  KernelOriginalDestination original_destination_;
  boost::asio::io_context context_;
  Engine engine_;
  Heartbeat heartbeat_;
  boost::asio::signal_set signals_;
  boost::asio::steady_timer timer_;
  AgentLink agent_;
  std::unique_ptr<HttpServer> http_;
  bool draining_ = false;
  Clock::time_point drain_began_;
  int exit_code_ = 0;
};

}  // namespace

int run_daemon(const Options& options) {
  return Daemon(options).run();
}

}  // namespace sidetrack::engine
