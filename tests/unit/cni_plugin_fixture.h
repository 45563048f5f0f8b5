// SPDX-License-Identifier: Apache-2.0
// Runs the built plugin as a runtime does: environment, stdin, stdout, exit status, and how long it
// took.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/lab/process.h"
#include "tests/lab/temp_dir.h"
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
  [[nodiscard]] std::string said(const char* key) const {
    const auto parsed = nlohmann::json::parse(output, nullptr, false);
    return parsed.is_object() ? parsed.value(key, "") : "";
  }
};

class CniPluginTest : public testing::Test {
 protected:
  CniPluginTest() {
    auto made = lab::TempDir::create("cniplugin");
    EXPECT_TRUE(made) << made.error().message;
    folder.emplace(std::move(*made));
    socket = folder->file("cni.sock");
    variables = {{"CNI_CONTAINERID", "c0ffee"},
                 {"CNI_NETNS", "/proc/self/ns/net"},
                 {"CNI_IFNAME", "eth0"},
                 {"CNI_PATH", "/opt/cni/bin"},
                 {"CNI_ARGS",
                  "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;"
                  "K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=6a1c"}};
  }

  [[nodiscard]] std::string configuration() const {
    return "{\"cniVersion\": \"" + version + "\", \"name\": \"net\", \"type\": \"sidetrack-cni\"" +
           ", \"socket\": \"" + socket + "\"" + keys +
           (previous.empty() ? "" : ", \"prevResult\": " + previous) + "}";
  }
  Ran run(const std::string& command) { return run_with(command, configuration()); }
  Ran run_with(const std::string& command, const std::string& input) {
    std::vector<std::string> arguments{"env", "-i"};
    if (!command.empty()) {
      arguments.push_back("CNI_COMMAND=" + command);
    }
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
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder->file(name), std::ios::binary) << text;
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::ifstream file(folder->file(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  std::optional<lab::TempDir> folder;
  std::string socket;
  std::string version = "1.1.0";
  std::string keys;  // ", \"key\": value"
  std::string previous = "{}";
  std::map<std::string, std::string> variables;
};

}  // namespace sidetrack::cni
