// SPDX-License-Identifier: Apache-2.0
#include "agent/cni/enrolled_namespaces.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <sstream>
#include <utility>

#include "sidetrack/files/whole_file.h"

namespace sidetrack::cni {
namespace {

constexpr std::chrono::seconds kFresh{30};

}  // namespace

std::set<std::string> EnrolledNamespaces::read() const {
  std::set<std::string> names;
  if (const auto found = files::read_file(file_)) {
    std::istringstream lines(found->text);
    for (std::string line; std::getline(lines, line);) {
      names.insert(line);
    }
  }
  return names;
}

Result<void> EnrolledNamespaces::write(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += name + "\n";
  }
  if (written_ == text) {
    return {};
  }
  const auto found = files::read_file(file_);
  if (!found || found->text != text) {
    ST_TRY(files::replace_file(file_, text, {.mode = 0644}));
  }
  written_ = std::move(text);
  return {};
}

Result<void> EnrolledNamespaces::keep_fresh(Clock::time_point now) {
  if (touched_ && now - *touched_ < kFresh) {
    return {};
  }
  touched_ = now;
  if (::utimensat(AT_FDCWD, file_.c_str(), nullptr, 0) == 0) {
    fails_ = false;
    return {};
  }
  const int error = errno;
  return std::exchange(fails_, true) ? Result<void>()
                                     : errno_error("touch " + file_.string(), error);
}

}  // namespace sidetrack::cni
