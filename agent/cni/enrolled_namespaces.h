// SPDX-License-Identifier: Apache-2.0
// The list of enrolled namespaces that the plugin reads when it cannot ask the agent: a file, a
// name a line, sorted. Its modification time tells when an agent was there last. One thread.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "sidetrack/result.h"

namespace sidetrack::cni {

class EnrolledNamespaces {
 public:
  using Clock = std::chrono::steady_clock;

  // `file`: <cache-dir>/enrolled-namespaces.
  explicit EnrolledNamespaces(std::filesystem::path file) : file_(std::move(file)) {}

  // What the file says, by whomever it was written; nothing of one that cannot be read.
  [[nodiscard]] std::set<std::string> read() const;

  // Replaces the file by these names, unless it says so already; readers see the old list or the
  // new one. Mode 0644. An error leaves the old list; the next call tries again.
  [[nodiscard]] Result<void> write(const std::set<std::string>& names);

  // The agent is there. Touches the file if it is 30 s since the last time: an attribute changes,
  // of which no runtime and no watch of ours is told. An error is given once, until it works again.
  [[nodiscard]] Result<void> keep_fresh(Clock::time_point now);

 private:
  std::filesystem::path file_;
  std::optional<std::string> written_;
  std::optional<Clock::time_point> touched_;  // or tried to
  bool fails_ = false;                        // to be touched
};

}  // namespace sidetrack::cni
