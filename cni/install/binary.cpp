// SPDX-License-Identifier: Apache-2.0
#include "cni/install/binary.h"

#include <sys/stat.h>

#include "sidetrack/files/whole_file.h"

namespace sidetrack::cni::install {

std::optional<Binary::Identity> Binary::identity_of(const std::filesystem::path& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    return std::nullopt;
  }
  return Identity{.inode = status.st_ino,
                  .size = status.st_size,
                  .changed_ns = status.st_ctim.tv_sec * 1'000'000'000 + status.st_ctim.tv_nsec};
}

Result<void> Binary::ensure(const Settings& settings) {
  const std::filesystem::path path = settings.bin_dir / settings.entry.type;
  if (seen_ && identity_of(path) == seen_) {
    return {};
  }
  const auto original = files::read_file(settings.binary, files::kMaxBinaryBytes);
  if (!original) {
    return original.error().within("plugin");
  }
  const auto copy = files::read_file(path, files::kMaxBinaryBytes);
  const bool fits = copy && !copy->is_link && copy->mode == 0755 && copy->text == original->text;
  if (!fits) {
    ST_TRY(files::replace_file(path, original->text, {.mode = 0755}));
  }
  seen_ = identity_of(path);
  return {};
}

}  // namespace sidetrack::cni::install
