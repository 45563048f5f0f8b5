// SPDX-License-Identifier: Apache-2.0
// Which options of a program were not set on its command line, so that what is said of one can name
// the variable or the file to correct. A value; reads no environment.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "sidetrack/result.h"

namespace sidetrack::cli {

// "SIDETRACK_STATE_DIR" -> "state-dir"; "" where the name does not begin so.
[[nodiscard]] std::string option_of_variable(std::string_view variable);
// The other way.
[[nodiscard]] std::string variable_of_option(std::string_view option);

class Origins {
 public:
  // `where`: a variable's name, or "--config FILE". The first one said of an option stays.
  void note(const std::string& option, const std::string& where);
  // The error, with the origin of every option that its message names as --OPTION or 'OPTION'.
  [[nodiscard]] Error explain(Error error) const;

 private:
  std::map<std::string, std::string> where_;
};

}  // namespace sidetrack::cli
