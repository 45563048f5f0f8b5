// SPDX-License-Identifier: Apache-2.0
// CniPluginTest: a folder, a socket's name in it, and what a runtime hands to the plugin.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>

#include "tests/lab/temp_dir.h"
#include "tests/unit/cni_plugin_run.h"

namespace sidetrack::cni {

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
    auto all = variables;
    if (!command.empty()) {
      all["CNI_COMMAND"] = command;
    }
    return run_plugin(all, input);
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
