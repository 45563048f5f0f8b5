// SPDX-License-Identifier: Apache-2.0
#include "agent/cni/enrolled_namespaces.h"

#include <sstream>

#include "sidetrack/files/whole_file.h"

namespace sidetrack::cni {

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

}  // namespace sidetrack::cni
