// SPDX-License-Identifier: Apache-2.0
// A node's folders for the tests of the installer: configurations, plugins, cache.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <string>

#include "cni/install/settings.h"
#include "sidetrack/files/whole_file.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::cni::install {

class CniFolderTest : public testing::Test {
 protected:
  CniFolderTest() {
    auto made = lab::TempDir::create("cniinstall");
    EXPECT_TRUE(made) << made.error().message;
    folder.emplace(std::move(*made));
    for (const char* name : {"net.d", "bin", "cache"}) {
      std::filesystem::create_directory(folder->path() / name);
    }
    std::ofstream(folder->file("plugin")) << "the program";
    settings = {.conf_dir = folder->path() / "net.d",
                .bin_dir = folder->path() / "bin",
                .binary = folder->path() / "plugin",
                .cache_dir = folder->path() / "cache",
                .entry = {.own_namespace = "mesh"}};
  }

  // As a careless program does it.
  void put(const std::string& name, const std::string& text) const {
    std::ofstream(settings.conf_dir / name, std::ios::binary) << text;
  }
  [[nodiscard]] std::string get(const std::string& name) const {
    return files::read_file(settings.conf_dir / name).value_or({}).text;
  }
  [[nodiscard]] std::set<std::string> names() const {
    std::set<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(settings.conf_dir)) {
      all.insert(entry.path().filename().string());
    }
    return all;
  }
  [[nodiscard]] bool has_program() const {
    return std::filesystem::exists(settings.bin_dir / "sidetrack-cni");
  }
  // A list of one plugin.
  [[nodiscard]] static std::string list(const std::string& type, const std::string& name = "net") {
    return "{\"cniVersion\": \"1.0.0\", \"name\": \"" + name + "\", \"plugins\": [{\"type\": \"" +
           type + "\"}]}\n";
  }
  [[nodiscard]] static std::string single(const std::string& type) {
    return "{\"cniVersion\": \"1.0.0\", \"name\": \"net\", \"type\": \"" + type + "\"}\n";
  }

  std::optional<lab::TempDir> folder;
  Settings settings;
};

}  // namespace sidetrack::cni::install
