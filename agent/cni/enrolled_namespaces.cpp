// SPDX-License-Identifier: Apache-2.0
#include "agent/cni/enrolled_namespaces.h"

#include <unistd.h>

#include <cerrno>

#include "cni/install/file.h"

namespace sidetrack::cni {

Result<void> EnrolledNamespaces::write(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += name + "\n";
  }
  if (written_ == text) {
    return {};
  }
  const auto found = install::read_file(file_);
  if (!found || found->text != text) {
    ST_TRY(install::replace_file(file_, text, {.mode = 0644}));
  }
  written_ = std::move(text);
  return {};
}

Result<void> EnrolledNamespaces::remove() {
  written_.reset();
  if (::unlink(file_.c_str()) != 0 && errno != ENOENT) {
    return errno_error("remove " + file_.string(), errno);
  }
  return {};
}

}  // namespace sidetrack::cni
