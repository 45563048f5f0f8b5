// SPDX-License-Identifier: Apache-2.0
#include "probe/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <thread>

#include "probe/http.h"
#include "probe/kernel_view.h"
#include "probe/serve.h"
#include "sidetrack/cli/say.h"

namespace sidetrack::probe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kDeadline{5000};
constexpr std::chrono::milliseconds kPoll{200};

// Whether a connection that is redirected, or passed through, may be seen on this path.
bool may_take(const std::string& path, bool redirected) {
  if (path == "fast") {  // its bytes skip TCP, with an engine in between or without
    return true;
  }
  return redirected ? path == "engine" || path == "handoff" : path == "direct";
}

class Checker {
 public:
  explicit Checker(const Options& options)
      : options_(options), end_(Clock::now() + options.patience) {}

  // One sentence about what was seen.
  Result<std::string> check(const Expectation& expectation) const {
    auto destination = until_given([&] { return resolve(expectation.host, expectation.port); });
    ST_TRY(destination);
    // The server may still be starting, and an address that the node does not know yet may lead to
    // somebody else; from here on nothing may fail.
    ST_TRY(until_given([&] { return ask(expectation); }));
    ST_TRY(until_explained(expectation.reason, *destination));
    auto before = count(expectation.reason);
    ST_TRY(before);
    auto exchange = ask(expectation);
    ST_TRY(exchange);
    auto after = until_given([&]() -> Result<std::uint64_t> {
      auto now = count(expectation.reason);
      ST_TRY(now);
      if (*now == *before) {
        return make_error(ErrorCode::kNotFound,
                          fmt::format("the kernel counted no connection as {}: {} before it, {} "
                                      "after it",
                                      expectation.reason, *before, *now));
      }
      return *now;
    });
    ST_TRY(after);
    auto path = check_path(expectation, *exchange);
    ST_TRY(path);
    return fmt::format("{}: {} +{}{}, answered by {}", *destination, expectation.reason,
                       *after - *before, *path,
                       exchange->body.substr(0, exchange->body.find('\n')));
  }

 private:
  // Tries until there is a value or the time is over: pods are enrolled by others, later than they
  // start.
  template <class Get>
  auto until_given(Get get) const -> decltype(get()) {
    for (;;) {
      auto value = get();
      if (value || Clock::now() >= end_) {
        return value;
      }
      std::this_thread::sleep_for(kPoll);
    }
  }

  // The server must be ours, and see the pod's own address, whatever the path.
  static Result<Exchange> ask(const Expectation& expectation) {
    const auto host = [](const std::string& address) {
      return address.substr(0, address.rfind(':'));
    };
    auto exchange = ask_server(expectation.host, expectation.port, kDeadline);
    ST_TRY(exchange);
    const std::string client = client_of(exchange->body);
    if (host(client) != host(exchange->source)) {
      return make_error(
          ErrorCode::kNotFound,
          fmt::format("the server at {} saw the client '{}', not {}: {}", exchange->destination,
                      client, exchange->source, exchange->body));
    }
    return exchange;
  }

  Result<std::uint64_t> count(const std::string& reason) const {
    auto body = ask_socket(options_.admin_socket, "/v1/counters", kDeadline);
    ST_TRY(body);
    return read_count(*body, options_.namespace_name, reason);
  }

  Result<bool> until_explained(const std::string& reason, const std::string& destination) const {
    const std::string target = fmt::format("/v1/explain?namespace={}&pod={}&destination={}",
                                           options_.namespace_name, options_.pod, destination);
    return until_given([&]() -> Result<bool> {
      auto body = ask_socket(options_.admin_socket, target, kDeadline);
      ST_TRY(body);
      auto explanation = read_explanation(*body);
      ST_TRY(explanation);
      const std::string seen =
          fmt::format("{}: expected {}, the kernel would say {} ({})", destination, reason,
                      explanation->reason, explanation->verdict);
      if (explanation->reason != reason) {
        return make_error(ErrorCode::kNotFound, seen);
      }
      if (!explanation->agrees_with_kernel) {
        return make_error(ErrorCode::kNotFound,
                          seen + ", but it does not hold what the objects ask for");
      }
      return true;
    });
  }

  // Excluded connections leave no record at all; the others do.
  Result<std::string> check_path(const Expectation& expectation, const Exchange& exchange) const {
    const bool redirected = expectation.reason == "redirected";
    if (!redirected && expectation.reason != "passthrough") {
      return std::string(", left alone");
    }
    return until_given([&]() -> Result<std::string> {
      auto body = ask_socket(options_.admin_socket,
                             "/v1/flows?namespace=" + options_.namespace_name, kDeadline);
      ST_TRY(body);
      auto path = read_path(*body, exchange.source, exchange.destination);
      ST_TRY(path);
      if (!may_take(*path, redirected)) {
        return make_error(
            ErrorCode::kNotFound,
            fmt::format("expected a flow {} -> {} {} the engine, seen: {}", exchange.source,
                        exchange.destination, redirected ? "through" : "without",
                        path->empty() ? "none" : "one with the path '" + *path + "'"));
      }
      return ", path " + *path;
    });
  }

  const Options& options_;
  Clock::time_point end_;
};

}  // namespace

Result<void> check(const Options& options) {
  const Checker checker(options);
  std::size_t failed = 0;
  for (const Expectation& expectation : options.expectations) {
    auto seen = checker.check(expectation);
    failed += seen ? 0 : 1;
    cli::say(fmt::format("{} {} {}:{}: {}\n", seen ? "ok  " : "FAIL", expectation.reason,
                         expectation.host, expectation.port, seen ? *seen : seen.error().message));
  }
  if (failed != 0) {
    return make_error(ErrorCode::kNotFound, fmt::format("{} of {} expectations were not met",
                                                        failed, options.expectations.size()));
  }
  return {};
}

}  // namespace sidetrack::probe
