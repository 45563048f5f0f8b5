// SPDX-License-Identifier: Apache-2.0
// Churn: a steady stream of scale_change()s to a cluster, from its beginning to its stop(), by a
// thread and a client of its own. Thread rule: one owner.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "agent/kube/api_client.h"

namespace sidetrack::tests {

inline constexpr int kChurnPerSecond = 50;

struct Churned {
  int changes = 0;
  double seconds = 0;
  std::string failure;  // of one that failed
};

class Churn {
 public:
  explicit Churn(std::unique_ptr<kube::ApiClient> client);

  // Once all that were begun have ended.
  [[nodiscard]] Churned stop();

 private:
  void run(const std::stop_token& stopped);

  std::unique_ptr<kube::ApiClient> client_;
  Churned churned_;
  std::jthread thread_;  // last: it uses the rest
};

}  // namespace sidetrack::tests
