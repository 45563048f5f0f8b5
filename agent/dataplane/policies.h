// SPDX-License-Identifier: Apache-2.0
// The policies in the kernel: st_policies, st_cidrs and st_port_pages. Equal content is stored
// once. A policy is written whole under a new id before any pod names it, and deleted when none has
// named it for a while. Internal to agent/dataplane.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/dataplane/dataplane.h"

namespace sidetrack::dataplane {

class PolicyStore {
 public:
  struct Maps {
    int policies = -1;
    int cidrs = -1;
    int port_pages = -1;
  };
  using Clock = std::chrono::steady_clock;

  // Reads what an earlier agent left, so that ids are not used twice and its policies are collected
  // in time.
  [[nodiscard]] Result<void> open(const Maps& maps);
  [[nodiscard]] Result<std::uint32_t> acquire(const std::string& fingerprint,
                                              const PolicyContent& content, Clock::time_point now);
  // Whether the policy's row is in the kernel as it was written; those of addresses and ports are
  // not looked at.
  [[nodiscard]] Result<bool> holds(std::uint32_t id) const;
  // Deletes what no id of `used` has named for more than kGrace, as seen by these calls.
  void collect(const std::set<std::uint32_t>& used, Clock::time_point now);

  [[nodiscard]] std::uint64_t policies() const { return stored_.size(); }
  [[nodiscard]] std::uint64_t cidrs() const;
  [[nodiscard]] std::uint64_t port_pages() const;

  // How long a connect() that has read the old pod row may still look its policy up.
  static constexpr std::chrono::seconds kGrace{2};

 private:
  static constexpr std::uint32_t kNoPolicy =
      0;  // in rows of pods without rules; no policy of ours has it
  struct Stored {
    std::string fingerprint;       // empty: not to be given out (any more)
    std::optional<st_policy> row;  // nothing: left by an earlier agent
    std::vector<st_cidr_key> cidrs;
    std::vector<st_port_page_key> pages;
    std::optional<Clock::time_point> unused_since;  // nothing: a row names it, or not looked at yet
  };
  [[nodiscard]] Result<std::uint32_t> write_set(const PortPages& pages, Stored& stored);
  [[nodiscard]] Result<void> write(std::uint32_t id, const PolicyContent& content, Stored& stored);
  void erase(std::uint32_t id, const Stored& stored);

  Maps maps_;
  std::map<std::uint32_t, Stored> stored_;
  std::map<std::string, std::uint32_t> by_fingerprint_;
  std::uint32_t next_id_ = 1;
  std::uint32_t next_set_ = 1;
};

}  // namespace sidetrack::dataplane
