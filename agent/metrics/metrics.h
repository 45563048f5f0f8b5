// SPDX-License-Identifier: Apache-2.0
// The Prometheus metrics (docs/metrics.md), read from the Views at scrape time: nothing is counted
// twice, and what the kernel counts survives the agent. No labels with unbounded values. Thread
// rule: that of the Views.
#pragma once

#include <prometheus/collectable.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/admin/views.h"

namespace sidetrack::metrics {

class Metrics : public prometheus::Collectable {
 public:
  // `views` must outlive us.
  explicit Metrics(admin::Views& views);
  ~Metrics() override;
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // How long it took from a change of policy until the kernel had it.
  void observe_policy_apply(double seconds);

  // One answered request of the CNI plugin; `code` 0 = done, else the error's.
  void observe_cni(std::string_view command, std::uint32_t code, double seconds);

  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override;
  // The text exposition format, version 0.0.4.
  [[nodiscard]] std::string text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sidetrack::metrics
