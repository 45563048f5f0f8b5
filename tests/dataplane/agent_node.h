// SPDX-License-Identifier: Apache-2.0
// AgentNode: a FaultNode with two echo servers, for what an agent goes through. Thread rule: one
// owner.
#pragma once

#include <cstddef>
#include <string>

#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {

class AgentNode : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      start_echo({"echo:7000", "echo:7001"});
    }
  }
  // How often the agent has said that it put objects into force.
  [[nodiscard]] std::size_t applied() const { return said("event=applied", "no end"); }
  // How often the agent has said `what`, until it said `end`.
  [[nodiscard]] std::size_t said(const std::string& what, const std::string& end) const {
    std::string log = sidetrack_->agent().output();
    log = log.substr(0, log.find(end));
    std::size_t count = 0;
    for (auto at = log.find(what); at != std::string::npos; at = log.find(what, at + 1)) {
      ++count;
    }
    return count;
  }
};

}  // namespace sidetrack::lab
