// SPDX-License-Identifier: Apache-2.0
#include "agent/cni/enrolled_namespaces.h"

#include "sidetrack/files/whole_file.h"

namespace sidetrack::cni {

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

}  // namespace sidetrack::cni
