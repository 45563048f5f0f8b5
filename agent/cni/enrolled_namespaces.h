// SPDX-License-Identifier: Apache-2.0
// The list of enrolled namespaces that the plugin reads when it cannot ask the agent: a file, a
// name a line, sorted. One thread.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "sidetrack/result.h"

namespace sidetrack::cni {

class EnrolledNamespaces {
 public:
  // `file`: <cache-dir>/enrolled-namespaces.
  explicit EnrolledNamespaces(std::filesystem::path file) : file_(std::move(file)) {}

  // What the file says, by whomever it was written; nothing of one that cannot be read.
  [[nodiscard]] std::set<std::string> read() const;

  // Replaces the file by these names, unless it says so already; readers see the old list or the
  // new one. Mode 0644. An error leaves the old list; the next call tries again.
  [[nodiscard]] Result<void> write(const std::set<std::string>& names);

 private:
  std::filesystem::path file_;
  std::optional<std::string> written_;
};

}  // namespace sidetrack::cni
