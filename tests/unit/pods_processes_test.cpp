// SPDX-License-Identifier: Apache-2.0
// Processes as a folder shows them: files stand for namespaces, by their inodes.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "agent/pods/processes.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::pods {
namespace {

namespace fs = std::filesystem;

class RingHolders : public testing::Test {
 protected:
  // The inode of a new namespace.
  ino_t make_netns(const std::string& name) const {
    std::ofstream(root_ / name);
    struct stat status {};
    stat((root_ / name).c_str(), &status);
    return status.st_ino;
  }
  // A process in a namespace, with descriptors of these.
  void add(const std::string& pid, const std::string& netns,
           const std::vector<std::string>& descriptors) const {
    fs::create_directories(root_ / pid / "ns");
    fs::create_directories(root_ / pid / "fd");
    fs::create_symlink(root_ / netns, root_ / pid / "ns/net");
    for (const std::string& target : descriptors) {
      const auto count = std::distance(fs::directory_iterator(root_ / pid / "fd"), {});
      fs::create_symlink(target, root_ / pid / "fd" / std::to_string(count));
    }
  }

  const lab::TempDir folder_ = lab::TempDir::create("proc").value();
  const fs::path root_{folder_.path()};
};

TEST_F(RingHolders, are_found_by_their_namespace) {
  const ino_t with = make_netns("with");
  const ino_t without = make_netns("without");
  const ino_t other = make_netns("other");
  add("10", "with", {"/dev/null", "socket:[1]"});
  add("11", "with", {"socket:[2]", "anon_inode:[io_uring]"});
  add("12", "without", {"anon_inode:[eventpoll]", "anon_inode:[io_uring_not]", "io_uring"});
  add("13", "other", {"anon_inode:[io_uring]"});
  add("self", "without", {"anon_inode:[io_uring]"});
  const auto found = netns_with_io_uring({with, without}, root_);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(*found, std::set<ino_t>{with});
  EXPECT_EQ(*netns_with_io_uring({other}, root_), std::set<ino_t>{other});
}

TEST_F(RingHolders, that_are_gone_or_hidden_are_passed_by) {
  const ino_t netns = make_netns("netns");
  fs::create_directories(root_ / "10");
  add("11", "netns", {});
  fs::remove_all(root_ / "11/fd");
  EXPECT_EQ(*netns_with_io_uring({netns}, root_), std::set<ino_t>{});
  EXPECT_FALSE(netns_with_io_uring({netns}, root_ / "missing"));
}

}  // namespace
}  // namespace sidetrack::pods
