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

class ListedProcesses : public testing::Test {
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

  // One whose namespace cannot be seen, in this cgroup: a file stands where a folder should.
  void add_hidden(const std::string& pid, const std::string& cgroup) const {
    fs::create_directories(root_ / pid);
    std::ofstream(root_ / pid / "ns");
    std::ofstream(root_ / pid / "cgroup") << "0::" << cgroup << "\n";
  }

  static constexpr const char* kUid = "1f2e3d4c-0000-4000-8000-000000000001";
  static constexpr const char* kOther = "1f2e3d4c-0000-4000-8000-000000000002";
  static std::string cgroup_of(const std::string& uid) {
    return "/kubepods/burstable/pod" + uid + "/" + std::string(64, 'a');
  }
  const lab::TempDir folder_ = lab::TempDir::create("proc").value();
  const fs::path root_{folder_.path()};
};

using RingHolders = ListedProcesses;

TEST_F(RingHolders, are_found_by_their_namespace) {
  const ino_t with = make_netns("with");
  const ino_t without = make_netns("without");
  const ino_t other = make_netns("other");
  add("10", "with", {"/dev/null", "socket:[1]"});
  add("11", "with", {"socket:[2]", "anon_inode:[io_uring]"});
  add("12", "without", {"anon_inode:[eventpoll]", "anon_inode:[io_uring_not]", "io_uring"});
  add("13", "other", {"anon_inode:[io_uring]"});
  add("self", "without", {"anon_inode:[io_uring]"});
  const auto holders = netns_with_io_uring({{with, ""}, {without, ""}}, root_);
  ASSERT_TRUE(holders) << holders.error().message;
  EXPECT_EQ(holders->found, std::set<ino_t>{with});
  EXPECT_TRUE(holders->unseen.empty());
  EXPECT_EQ(netns_with_io_uring({{other, ""}}, root_)->found, std::set<ino_t>{other});
}

TEST_F(RingHolders, that_are_gone_are_passed_by) {
  const ino_t netns = make_netns("netns");
  fs::create_directories(root_ / "10");
  add("11", "netns", {});
  fs::remove_all(root_ / "11/fd");
  const auto holders = netns_with_io_uring({{netns, ""}}, root_);
  ASSERT_TRUE(holders) << holders.error().message;
  EXPECT_TRUE(holders->found.empty());
  EXPECT_TRUE(holders->unseen.empty());
  EXPECT_FALSE(netns_with_io_uring({{netns, ""}}, root_ / "missing"));
}

// Files of another kind stand for what a process of another user refuses.
TEST_F(RingHolders, that_cannot_be_looked_at_are_not_taken_for_none) {
  const ino_t list = make_netns("list");
  add("10", "list", {});
  fs::remove_all(root_ / "10/fd");
  std::ofstream(root_ / "10/fd");
  const ino_t link = make_netns("link");
  add("11", "link", {"socket:[1]"});
  std::ofstream(root_ / "11/fd/1");
  const ino_t both = make_netns("both");
  add("12", "both", {"anon_inode:[io_uring]"});
  add("13", "both", {});
  std::ofstream(root_ / "13/fd/0");
  const auto holders = netns_with_io_uring({{list, ""}, {link, ""}, {both, ""}}, root_);
  ASSERT_TRUE(holders) << holders.error().message;
  EXPECT_EQ(holders->found, std::set<ino_t>{both});
  ASSERT_EQ(holders->unseen.size(), 2U);
  EXPECT_NE(holders->unseen.at(list).find("10/fd"), std::string::npos) << holders->unseen.at(list);
  EXPECT_NE(holders->unseen.at(link).find("11/fd"), std::string::npos) << holders->unseen.at(link);
}

TEST_F(RingHolders, whose_namespace_cannot_be_seen_count_by_their_pods_cgroup) {
  const ino_t theirs = make_netns("theirs");
  const ino_t other = make_netns("other");
  add_hidden("10", cgroup_of(kUid));
  add_hidden("11", "/system.slice/sshd.service");
  const auto holders = netns_with_io_uring({{theirs, kUid}, {other, ""}}, root_);
  ASSERT_TRUE(holders) << holders.error().message;
  EXPECT_EQ(holders->unseen.size(), 1U);
  EXPECT_TRUE(holders->unseen.contains(theirs));
}

TEST_F(ListedProcesses, that_cannot_be_looked_at_are_told_of_by_their_pod) {
  add_hidden("10", cgroup_of(kUid));
  add_hidden("11", "/system.slice/sshd.service");
  make_netns("netns");
  add("12", "netns", {});
  std::ofstream(root_ / "12/cgroup") << "0::" << cgroup_of(kUid) << "\n";
  fs::create_directories(root_ / "13");  // of one that has just ended
  std::ofstream(root_ / "13/cgroup") << "0::" << cgroup_of(kOther) << "\n";
  const auto processes = list_processes(root_);
  ASSERT_TRUE(processes) << processes.error().message;
  ASSERT_EQ(processes->unseen.size(), 1U);
  EXPECT_NE(processes->unseen.at(kUid).find("10/ns/net: Not a directory"), std::string::npos)
      << processes->unseen.at(kUid);
  ASSERT_EQ(processes->of_pods.size(), 1U);
  EXPECT_EQ(processes->of_pods.at(kUid).size(), 1U);
}

}  // namespace
}  // namespace sidetrack::pods
