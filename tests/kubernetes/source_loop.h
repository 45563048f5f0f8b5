// SPDX-License-Identifier: Apache-2.0
// SourceLoop: an event loop with a KubernetesSource in it, run by the test's thread; keeps the last
// snapshot and counts them. Times are short, so that faults show soon.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/io_context.hpp>

#include "agent/kube/kubernetes_source.h"
#include "tests/lab/wait.h"

namespace sidetrack::tests {

inline kube::KubernetesSettings quick_settings(const std::filesystem::path& kubeconfig) {
  using namespace std::chrono_literals;
  kube::KubernetesSettings settings;
  settings.kubeconfig = kubeconfig;
  settings.node_name = "worker-1";
  settings.namespace_name = "sidetrack";
  settings.grace = 500ms;
  settings.times.reflector.backoff = {.first = 50ms, .cap = 400ms, .reset = 10s};
  settings.times.reflector.watch_min = 20s;
  settings.times.reflector.watch_max = 40s;
  settings.times.reflector.initial_limit = 10s;
  settings.times.head_limit = 10s;
  settings.times.read_slack = 2s;
  return settings;
}

class SourceLoop {
 public:
  explicit SourceLoop(kube::KubernetesSettings settings) {
    auto source = kube::KubernetesSource::create(io_, std::move(settings));
    if (!source) {
      error_ = source.error().message;
      return;
    }
    source_ = std::move(*source);
    source_->start([this](const kube::Snapshot& snapshot) {
      last_ = snapshot;
      ++deliveries_;
    });
  }

  // Runs the loop until `done`; false if that is not so in time.
  bool run_until(const std::function<bool()>& done,
                 std::chrono::milliseconds limit = lab::kPatience) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!done() && std::chrono::steady_clock::now() < end) {
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(20));
    }
    return done();
  }
  bool run_until_complete() {
    return run_until([this] { return last_ && last_->complete; });
  }

  [[nodiscard]] const std::string& error() const { return error_; }
  [[nodiscard]] kube::KubernetesSource& source() { return *source_; }
  [[nodiscard]] bool delivered() const { return last_.has_value(); }
  [[nodiscard]] const kube::Snapshot& last() const { return *last_; }
  [[nodiscard]] int deliveries() const { return deliveries_; }
  [[nodiscard]] bool has_pod(const std::string& key) const {
    return last_ && last_->objects.pods.contains(key);
  }
  [[nodiscard]] std::string problems() const {
    std::string text;
    for (const kube::Problem& problem : last_ ? last_->problems : std::vector<kube::Problem>()) {
      text += problem.object + " " + problem.key + ": " + problem.reason + "\n";
    }
    return text;
  }

 private:
  boost::asio::io_context io_;
  std::unique_ptr<kube::KubernetesSource> source_;
  std::optional<kube::Snapshot> last_;
  std::string error_;
  int deliveries_ = 0;
};

}  // namespace sidetrack::tests
