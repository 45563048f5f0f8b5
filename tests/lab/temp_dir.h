// SPDX-License-Identifier: Apache-2.0
// Names and folders of a test's own. unique_name() gives "st-<pid>-<n>-NAME": nothing that runs at
// the same time has it. TempDir is a folder that goes away, with all in it, when its owner does.
// Thread rule: unique_name from any thread, a TempDir from one.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "sidetrack/result.h"

namespace sidetrack::lab {

// "st-<pid>-<n>-NAME"; every call gives another one.
[[nodiscard]] std::string unique_name(std::string_view name);

// Writes `text` to a file beside `path` and renames it: readers see all of it or nothing.
Result<void> write_atomically(const std::filesystem::path& path, std::string_view text);

// Writes `text` into an existing file in one write (procfs, sysfs, cgroupfs).
Result<void> write_existing(const std::string& path, std::string_view text);

class TempDir {
 public:
  static Result<TempDir> create(std::string_view name);
  TempDir(TempDir&& other) noexcept;
  TempDir& operator=(TempDir&& other) noexcept;
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::string file(std::string_view name) const { return (path_ / name).string(); }

 private:
  explicit TempDir(std::filesystem::path path) : path_(std::move(path)) {}
  void remove();

  std::filesystem::path path_;
};

}  // namespace sidetrack::lab
