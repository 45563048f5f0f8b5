// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/temp_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <system_error>

#include "sidetrack/unique_fd.h"

namespace sidetrack::lab {

std::string unique_name(std::string_view name) {
  static std::atomic<int> next{0};
  return fmt::format("st-{}-{}-{}", ::getpid(), ++next, name);
}

Result<void> write_atomically(const std::filesystem::path& path, std::string_view text) {
  // The leading dot and missing suffix keep folder watchers that look for *.yaml off the unfinished
  // file.
  const std::filesystem::path partial = path.parent_path() / ("." + unique_name("partial"));
  {
    std::ofstream out(partial, std::ios::binary | std::ios::trunc);
    out << text;
    out.close();
    if (out.fail()) {
      return errno_error("write " + partial.string(), errno);
    }
  }
  std::error_code failure;
  std::filesystem::rename(partial, path, failure);
  if (failure) {
    return errno_error("rename to " + path.string(), failure.value());
  }
  return {};
}

Result<void> write_existing(const std::string& path, std::string_view text) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid()) {
    return errno_error("open " + path, errno);
  }
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return errno_error(fmt::format("write \"{}\" to {}", text, path), errno);
  }
  return {};
}

Result<TempDir> TempDir::create(std::string_view name) {
  std::error_code failure;
  const std::filesystem::path path = std::filesystem::temp_directory_path() / unique_name(name);
  std::filesystem::create_directory(path, failure);
  if (failure) {
    return errno_error("create " + path.string(), failure.value());
  }
  std::filesystem::permissions(path, std::filesystem::perms::owner_all, failure);
  return TempDir(path);
}

TempDir::TempDir(TempDir&& other) noexcept : path_(std::exchange(other.path_, {})) {}

TempDir& TempDir::operator=(TempDir&& other) noexcept {
  if (this != &other) {
    remove();
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

TempDir::~TempDir() {
  remove();
}

void TempDir::remove() {
  if (!path_.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
}

}  // namespace sidetrack::lab
