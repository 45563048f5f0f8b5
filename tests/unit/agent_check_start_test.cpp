// SPDX-License-Identifier: Apache-2.0
// What is refused before anything is made, and before --standby waits.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "agent/main/standby.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::agent {
namespace {

class CheckStart : public ::testing::Test {
 protected:
  CheckStart() {
    options_.source = "kubernetes";
    options_.http = "off";
    options_.cni.conf_dir = folder_.file("net.d");
    options_.cni.bin_dir = folder_.file("bin");
    std::filesystem::create_directory(options_.cni.conf_dir);
    std::filesystem::create_directory(options_.cni.bin_dir);
  }
  // Whether what it says begins like this; what comes after the folders needs the node.
  [[nodiscard]] bool refuses(const std::string& beginning) const {
    const auto fits = check_start(options_);
    return !fits && fits.error().code == ErrorCode::kInvalid &&
           fits.error().message.starts_with(beginning);
  }

  const lab::TempDir folder_ = lab::TempDir::create("check-start").value();
  Options options_;
};

TEST_F(CheckStart, an_empty_folder_of_cni_configurations_will_be_filled) {
  EXPECT_FALSE(refuses("--cni-"));
}

TEST_F(CheckStart, a_missing_folder_of_cni_is_refused_with_its_option) {
  const std::string missing = folder_.file("missing");
  options_.cni.bin_dir = missing;
  EXPECT_TRUE(refuses("--cni-bin-dir '" + missing + "': No such file or directory; the folder"));
  options_.cni.conf_dir = missing;
  EXPECT_TRUE(refuses("--cni-conf-dir '" + missing + "': No such file or directory; the folder"));
  std::ofstream(missing) << "";
  EXPECT_TRUE(refuses("--cni-conf-dir '" + missing + "': not a folder; the folder"));
}

TEST_F(CheckStart, without_a_folder_to_install_into_none_is_looked_for) {
  options_.cni = {.conf_dir = "", .bin_dir = folder_.file("missing"), .binary = ""};
  EXPECT_FALSE(refuses("--cni-"));
}

}  // namespace
}  // namespace sidetrack::agent
