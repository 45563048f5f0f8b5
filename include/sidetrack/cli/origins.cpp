// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/cli/origins.h"

#include <algorithm>
#include <cctype>

namespace sidetrack::cli {
namespace {

constexpr std::string_view kPrefix = "SIDETRACK_";

bool is_of_a_name(char c) {
  return c == '-' || (std::isalnum(static_cast<unsigned char>(c)) != 0);
}

// As "--option", or as 'option', which is how Boost names one that no command line set.
bool names(std::string_view message, const std::string& option) {
  if (message.find("'" + option + "'") != std::string_view::npos) {
    return true;
  }
  const std::string word = "--" + option;
  for (auto at = message.find(word); at != std::string_view::npos;
       at = message.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    if (end == message.size() || !is_of_a_name(message[end])) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string option_of_variable(std::string_view variable) {
  if (!variable.starts_with(kPrefix)) {
    return "";
  }
  std::string option(variable.substr(kPrefix.size()));
  std::transform(option.begin(), option.end(), option.begin(), [](unsigned char c) {
    return static_cast<char>(c == '_' ? '-' : std::tolower(c));
  });
  return option;
}

std::string variable_of_option(std::string_view option) {
  std::string name(option);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(c == '-' ? '_' : std::toupper(c));
  });
  return std::string(kPrefix) + name;
}

void Origins::note(const std::string& option, const std::string& where) {
  where_.emplace(option, where);
}

Error Origins::explain(Error error) const {
  const std::string message = error.message;
  for (const auto& [option, where] : where_) {
    if (names(message, option)) {
      error.message += " (--" + option + " is set by " + where + ")";
    }
  }
  return error;
}

}  // namespace sidetrack::cli
