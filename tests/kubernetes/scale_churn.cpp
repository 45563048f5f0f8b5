// SPDX-License-Identifier: Apache-2.0
#include "tests/kubernetes/scale_churn.h"

#include <fmt/format.h>

#include <deque>
#include <optional>
#include <utility>

#include "tests/kubernetes/scale_objects.h"
#include "tests/lab/wait.h"

namespace sidetrack::tests {

using lab::Clock;

namespace {

constexpr auto kEvery = std::chrono::nanoseconds(std::chrono::seconds(1)) / kChurnPerSecond;

struct Patch : kube::ApiCall {
  bool on_data(std::string_view) override { return true; }
  void on_end(const kube::ApiOutcome& ended) override { outcome = ended; }
  std::optional<kube::ApiOutcome> outcome;
};

}  // namespace

Churn::Churn(std::unique_ptr<kube::ApiClient> client)
    : client_(std::move(client)),
      thread_([this](const std::stop_token& stopped) { run(stopped); }) {}

Churned Churn::stop() {
  thread_.request_stop();
  thread_.join();
  return churned_;
}

void Churn::run(const std::stop_token& stopped) {
  const auto begin = Clock::now();
  std::deque<Patch> open;
  auto next = begin;
  for (int n = 0; !stopped.stop_requested() || !open.empty();) {
    if (!stopped.stop_requested() && Clock::now() >= next) {
      const auto [target, object] = scale_change(n++);
      client_->start({.method = "PATCH",
                      .target = target,
                      .body = object,
                      .content_type = "application/merge-patch+json"},
                     open.emplace_back());
      next += kEvery;
    }
    client_->run(stopped.stop_requested() ? Clock::now() + kEvery : next);
    while (!open.empty() && open.front().outcome) {
      const kube::ApiOutcome& outcome = *open.front().outcome;
      ++churned_.changes;
      if (!outcome.ok()) {
        churned_.failure = fmt::format("{} {} {}", outcome.status, outcome.error, outcome.body);
      }
      open.pop_front();
    }
  }
  churned_.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace sidetrack::tests
