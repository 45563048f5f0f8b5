// SPDX-License-Identifier: Apache-2.0
// Files that others read at any moment: read whole and bounded, replaced as a whole. A replaced
// file is on disk when the call returns, and after a crash at any moment the old text or the new
// one is there. Blocking; no thread rule.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "sidetrack/result.h"

namespace sidetrack::files {

inline constexpr std::size_t kMaxTextBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMaxBinaryBytes = std::size_t{64} << 20;

struct FileText {
  std::string text;
  mode_t mode = 0644;  // permission bits
  uid_t uid = 0;
  gid_t gid = 0;
  ino_t inode = 0;
  bool is_link = false;  // the path is a symbolic link, the rest is of what it points to
};

// kNotFound; kInvalid: no regular file, or larger than `limit`.
[[nodiscard]] Result<FileText> read_file(const std::filesystem::path& path,
                                         std::size_t limit = kMaxTextBytes);

struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
};

struct Replacement {
  mode_t mode = 0644;
  std::optional<Owner> owner{};  // none: the caller's
  // What the file must still be just before it is replaced; an empty string: it must not exist.
  std::optional<std::string> expected{};
};

// Writes a temporary file beside `path` (".sidetrack-??????.tmp", a name that no runtime loads),
// syncs it, renames it and syncs the folder. kBusy: somebody changed the file meanwhile, nothing
// was replaced.
[[nodiscard]] Result<void> replace_file(const std::filesystem::path& path, std::string_view text,
                                        const Replacement& how);

// Removes the file and syncs the folder; one that is not there is no error.
[[nodiscard]] Result<void> remove_file(const std::filesystem::path& path);

// Removes temporary files that a killed process left.
void remove_leftovers(const std::filesystem::path& folder);

}  // namespace sidetrack::files
