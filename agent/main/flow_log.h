// SPDX-License-Identifier: Apache-2.0
// The latest flow records, each with a sequence number. Bounded: the oldest go. One thread.
#pragma once

#include <cstdint>
#include <deque>

#include "agent/admin/views.h"

namespace sidetrack::agent {

class FlowLog {
 public:
  // `started_ns`: the monotonic clock. The first number is larger than those that an agent before
  // can have given, so that whoever followed its flows goes on with ours.
  explicit FlowLog(std::uint64_t started_ns, std::size_t capacity = 20000)
      : capacity_(capacity), next_sequence_(1 + started_ns / 1'000'000'000 * kMostPerSecond) {}

  void add(admin::FlowView flow) {
    if (flows_.size() == capacity_) {
      flows_.pop_front();
    }
    flows_.push_back(std::move(flow));
    ++next_sequence_;
  }
  // The closed flows that the query asks for, oldest first.
  [[nodiscard]] admin::FlowPage find(const admin::FlowQuery& query) const {
    admin::FlowPage page;
    page.next_sequence = next_sequence_;
    const std::uint64_t first = next_sequence_ - flows_.size();
    for (std::size_t i = query.after_sequence > first ? query.after_sequence - first : 0;
         i < flows_.size(); ++i) {
      const admin::FlowView& flow = flows_[i];
      if (flow.end >= query.since &&
          (query.namespace_name.empty() || flow.namespace_name == query.namespace_name)) {
        page.flows.push_back(flow);
      }
    }
    return page;
  }

 private:
  static constexpr std::uint64_t kMostPerSecond = 1'000'000;

  std::size_t capacity_;
  std::uint64_t next_sequence_;  // of the flow that comes next
  std::deque<admin::FlowView> flows_;
};

}  // namespace sidetrack::agent
