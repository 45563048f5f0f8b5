// SPDX-License-Identifier: Apache-2.0
// KernelView: rows of one installation's pinned maps by plain bpf(2), so that tests can look (and
// do damage) while the agent is stopped or dead. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "sidetrack/abi/types.h"
#include "sidetrack/result.h"

namespace sidetrack::lab {

// What the programs of the fast path have counted (st_fast_counters), sums of all CPUs.
struct FastCounts {
  std::uint64_t messages = 0;                    // past TCP, to the peer
  std::uint64_t handoffs = 0;                    // past the engine
  std::map<std::string, std::uint64_t> refused;  // by reason ("fp_unread"), zeros left out
};

class KernelView {
 public:
  explicit KernelView(std::string pin_dir) : pin_dir_(std::move(pin_dir)) {}

  [[nodiscard]] Result<st_pod> pod(std::uint64_t netns_cookie) const;
  [[nodiscard]] Result<void> delete_pod(std::uint64_t netns_cookie) const;
  // Another policy in a row that stays as it is otherwise.
  [[nodiscard]] Result<void> set_policy(std::uint64_t netns_cookie, std::uint32_t policy_id) const;
  // The row that the flow record of a direct connection is made of; as if it had been evicted.
  [[nodiscard]] Result<void> delete_observed(std::uint64_t socket_cookie) const;
  // Redirected connections that are open now, by the kernel's count.
  [[nodiscard]] Result<std::int64_t> live(std::uint64_t netns_cookie) const;
  // Adds to the count of rows in st_records: that of one netns, that of all. Only while no
  // connection comes or goes.
  [[nodiscard]] Result<void> add_records(std::uint64_t netns_cookie, std::int64_t change) const;
  [[nodiscard]] Result<void> add_records(std::int64_t change) const;
  // Rows of no connection in a map of sockets or connections ("st_records"), which differ in the
  // first eight bytes of their keys; stops when the map takes no more.
  [[nodiscard]] Result<void> add_odd_rows(const std::string& map, std::uint32_t count) const;
  [[nodiscard]] Result<void> remove_odd_rows(const std::string& map) const;
  // A row of a map whose keys are cookies.
  [[nodiscard]] Result<bool> has_row(const std::string& map, std::uint64_t cookie) const;
  [[nodiscard]] Result<void> delete_row(const std::string& map, std::uint64_t cookie) const;
  // How much of a ring ("st_events") nobody has read yet, in bytes.
  [[nodiscard]] Result<std::uint64_t> waiting_in(const std::string& ring) const;
  // Connects of a namespace slot by reason ("redirected"), those that never happened left out.
  [[nodiscard]] Result<std::map<std::string, std::uint64_t>> counted(std::uint32_t slot) const;
  [[nodiscard]] Result<FastCounts> fast_counts() const;
  // Every pinned link ("st_connect4") and the id of the cgroup that it is attached to.
  [[nodiscard]] Result<std::map<std::string, std::uint64_t>> links() const;
  // BPF_LINK_DETACH: as `bpftool link detach` does.
  [[nodiscard]] Result<void> detach_link(const std::string& program) const;

 private:
  std::string pin_dir_;
};

}  // namespace sidetrack::lab
