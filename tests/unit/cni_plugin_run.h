// SPDX-License-Identifier: Apache-2.0
// Runs the built plugin as a runtime does: environment, stdin, stdout, exit status, and how long it
// took.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/lab/process.h"
#include "tests/lab/wait.h"

namespace sidetrack::cni {

struct Ran {
  int exit_status = -1;
  std::string output;  // stdout
  std::string all;     // stdout and stderr
  std::chrono::milliseconds took{0};

  // The error's code; 0 if stdout is no error.
  [[nodiscard]] int code() const {
    const auto parsed = nlohmann::json::parse(output, nullptr, false);
    return parsed.is_object() ? parsed.value("code", 0) : 0;
  }
  // stderr.
  [[nodiscard]] std::string noted() const {
    std::string text = all;
    return text.erase(std::min(text.find(output), text.size()), output.size());
  }
  [[nodiscard]] std::string said(const char* key) const {
    const auto parsed = nlohmann::json::parse(output, nullptr, false);
    return parsed.is_object() ? parsed.value(key, "") : "";
  }
};

// `variables` are all that it finds in its environment.
[[nodiscard]] inline Ran run_plugin(const std::map<std::string, std::string>& variables,
                                    const std::string& input) {
  std::vector<std::string> arguments{"env", "-i"};
  for (const auto& [name, value] : variables) {
    arguments.push_back(name + "=" + value);
  }
  arguments.push_back(lab::built_program("sidetrack-cni"));
  const auto before = lab::Clock::now();
  const auto result = lab::run_command({.arguments = arguments, .input = input});
  const auto took =
      std::chrono::duration_cast<std::chrono::milliseconds>(lab::Clock::now() - before);
  if (!result) {
    ADD_FAILURE() << result.error().message;
    return {};
  }
  return {.exit_status = result->exit_status,
          .output = result->standard_output,
          .all = result->output,
          .took = took};
}

}  // namespace sidetrack::cni
