// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "sidetrack/files/whole_file.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::files {
namespace {

class WholeFile : public testing::Test {
 protected:
  void SetUp() override {
    ST_ASSERT_VALUE(auto made, lab::TempDir::create("files"));
    folder.emplace(std::move(made));
    file = folder->path() / "10-net.conflist";
  }
  void put(const std::string& text) const { std::ofstream(file, std::ios::binary) << text; }
  [[nodiscard]] std::string text() const { return read_file(file).value_or({}).text; }
  [[nodiscard]] std::size_t count() const {
    const std::filesystem::directory_iterator all(folder->path());
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }

  std::optional<lab::TempDir> folder;
  std::filesystem::path file;
};

TEST_F(WholeFile, a_replaced_file_has_the_wanted_mode_and_owner) {
  put("old");
  const Owner owner{.uid = ::geteuid(), .gid = ::getegid()};
  ST_ASSERT_OK(replace_file(file, "new", {.mode = 0640, .owner = owner}));
  ST_ASSERT_VALUE(const auto now, read_file(file));
  EXPECT_EQ(now.text, "new");
  EXPECT_EQ(now.mode, 0640U);
  EXPECT_EQ(now.uid, owner.uid);
  EXPECT_EQ(count(), 1U) << "no temporary file is left";
}

TEST_F(WholeFile, somebody_elses_change_is_not_overwritten) {
  put("theirs");
  const auto lost = replace_file(file, "ours", {.expected = "what we read"});
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, ErrorCode::kBusy);
  EXPECT_EQ(text(), "theirs");
  EXPECT_FALSE(replace_file(file, "ours", {.expected = ""})) << "it must not exist";
  EXPECT_EQ(count(), 1U);
  ST_ASSERT_OK(replace_file(file, "ours", {.expected = "theirs"}));
  ST_ASSERT_OK(remove_file(file));
  ST_ASSERT_OK(remove_file(file));
  EXPECT_FALSE(replace_file(file, "ours", {.expected = "gone"}));
  ST_ASSERT_OK(replace_file(file, "ours", {.expected = ""}));
}

TEST_F(WholeFile, what_is_too_large_or_no_file_is_an_error) {
  put(std::string(100, 'x'));
  EXPECT_TRUE(read_file(file, 100));
  EXPECT_EQ(read_file(file, 99).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(read_file(folder->path()).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(read_file(file.string() + "x").error().code, ErrorCode::kNotFound);
  ASSERT_EQ(::mkfifo(folder->file("pipe").c_str(), 0600), 0);
  EXPECT_EQ(read_file(folder->file("pipe")).error().code, ErrorCode::kInvalid);
  std::filesystem::create_symlink(file, folder->path() / "link");
  EXPECT_TRUE(read_file(folder->path() / "link")->is_link);
  EXPECT_FALSE(read_file(file)->is_link);
}

TEST_F(WholeFile, leftovers_of_a_killed_writer_are_removed_and_nothing_else) {
  put("kept");
  std::ofstream(folder->file(".sidetrack-aB3dEf.tmp")) << "half";
  std::ofstream(folder->file(".other.tmp")) << "not ours";
  remove_leftovers(folder->path());
  EXPECT_EQ(count(), 2U);
}

}  // namespace
}  // namespace sidetrack::files
