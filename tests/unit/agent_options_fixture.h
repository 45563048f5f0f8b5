// SPDX-License-Identifier: Apache-2.0
// Command lines, environment and configuration files for the tests of agent/main/options.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "agent/main/options.h"

namespace sidetrack::agent::testing {

inline Result<Options> parse(std::vector<std::string> words) {
  words.insert(words.begin(), "sidetrack-agent");
  std::vector<const char*> argv;
  argv.reserve(words.size());
  for (const std::string& word : words) {
    argv.push_back(word.c_str());
  }
  return parse_options(static_cast<int>(argv.size()), argv.data());
}

// `run --objects /o` with `more`.
inline Result<Options> run_with(std::vector<std::string> more = {}) {
  more.insert(more.begin(), {"run", "--objects", "/o"});
  return parse(std::move(more));
}

// Takes variables of the environment back at its end.
class OptionsTest : public ::testing::Test {
 protected:
  ~OptionsTest() override {
    for (const std::string& name : names_) {
      unsetenv(name.c_str());
    }
    std::error_code ignored;
    std::filesystem::remove(file_, ignored);
  }
  void set(const std::string& name, const std::string& value) {
    names_.push_back(name);
    setenv(name.c_str(), value.c_str(), 1);
  }
  // A configuration file; its path.
  std::string config(const std::string& text) {
    std::ofstream(file_) << text;
    return file_;
  }

 private:
  std::vector<std::string> names_;
  std::string file_ =
      std::filesystem::temp_directory_path() / ("st-agent-options-" + std::to_string(getpid()));
};

}  // namespace sidetrack::agent::testing
