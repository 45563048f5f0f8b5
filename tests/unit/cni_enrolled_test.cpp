// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "agent/cni/enrolled_namespaces.h"
#include "sidetrack/files/whole_file.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::cni {
namespace {

TEST(EnrolledNamespaces, are_written_only_when_they_change) {
  ST_ASSERT_VALUE(const auto folder, lab::TempDir::create("enrolled"));
  const std::filesystem::path file = folder.path() / "enrolled-namespaces";
  const auto text = [&file] { return files::read_file(file).value_or({}).text; };

  EnrolledNamespaces list(file);
  ST_ASSERT_OK(list.write({"shop", "bank"}));
  EXPECT_EQ(text(), "bank\nshop\n");
  EXPECT_EQ(files::read_file(file)->mode, 0644U);
  struct stat before {};
  ASSERT_EQ(::stat(file.c_str(), &before), 0);
  ST_ASSERT_OK(list.write({"bank", "shop"}));
  ST_ASSERT_OK(EnrolledNamespaces(file).write({"bank", "shop"}));
  struct stat after {};
  ASSERT_EQ(::stat(file.c_str(), &after), 0);
  EXPECT_EQ(EnrolledNamespaces(file).read(), (std::set<std::string>{"bank", "shop"}));
  EXPECT_TRUE(EnrolledNamespaces(file.string() + "-none").read().empty());
  EXPECT_EQ(before.st_ino, after.st_ino) << "equal content is not written";
  ST_ASSERT_OK(list.write({}));
  EXPECT_EQ(text(), "");
}

}  // namespace
}  // namespace sidetrack::cni
