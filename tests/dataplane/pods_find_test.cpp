// SPDX-License-Identifier: Apache-2.0
// Pods found by what a kubelet leaves: real processes in cgroups of its naming and in real network
// namespaces with real addresses.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "agent/pods/netns_table.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/lab.h"
#include "tests/lab/process.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

using pods::KnownPod;
using pods::NetnsTable;

constexpr const char* kUid = "7e57ab1e-0001-4aaa-8bbb-00c0ffee0001";

// 0 = the path leads nowhere.
ino_t inode_of(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

class PodsFind : public testing::Test {
 protected:
  void SetUp() override {
    ST_ASSERT_VALUE(folder_, TempDir::create("find"));
    auto lab = Lab::create("find");
    ASSERT_TRUE(lab) << lab.error().message;
    lab_ = std::move(*lab);
    auto pod = lab_->add_pod("web");
    ASSERT_TRUE(pod) << pod.error().message;
    pod_ = *pod;
    auto cgroup = TestCgroup::create("find");
    ASSERT_TRUE(cgroup) << cgroup.error().message;
    cgroup_.emplace(std::move(*cgroup));
    auto system = NetnsTable::real_system();
    ASSERT_TRUE(system) << system.error().message;
    table_.emplace(std::move(*system));
  }

  // Starts a process of the pod as a runtime would; its cgroup is below one of the test's.
  void start_process(std::initializer_list<const char*> folders, const std::string& netns_path) {
    std::string path;
    for (const char* folder : folders) {
      path += path.empty() ? folder : std::string("/") + folder;
      ASSERT_TRUE(cgroup_->child(path));
    }
    auto process = Process::start({.arguments = {"sleep", "600"},
                                   .netns_path = netns_path,
                                   .cgroup_path = cgroup_->path() + "/" + path});
    ASSERT_TRUE(process) << process.error().message;
    processes_.push_back(std::move(*process));
  }

  // A process outside of every pod's cgroup, whose program is called `name`.
  void start_outside(const std::string& name, const std::string& netns_path) {
    const std::filesystem::path program = folder_->file(name);
    std::filesystem::create_symlink("/usr/bin/sleep", program);
    ASSERT_TRUE(cgroup_->child("kata_overhead"));
    auto process = Process::start({.arguments = {program, "600"},
                                   .netns_path = netns_path,
                                   .cgroup_path = cgroup_->path() + "/kata_overhead"});
    ASSERT_TRUE(process) << process.error().message;
    processes_.push_back(std::move(*process));
  }

  void look(const std::string& address) {
    table_->look({KnownPod{.uid = kUid, .addresses = {address}}}, pods::Clock::now());
  }

  std::optional<TempDir> folder_;
  std::unique_ptr<Lab> lab_;
  Pod* pod_ = nullptr;
  std::optional<TestCgroup> cgroup_;
  std::optional<NetnsTable> table_;
  std::vector<std::unique_ptr<Process>> processes_;
};

TEST_F(PodsFind, by_cgroups_as_the_cgroupfs_driver_makes_them) {
  start_process({"kubepods", "burstable", "pod7e57ab1e-0001-4aaa-8bbb-00c0ffee0001", "4c1d"},
                pod_->netns.path());
  look(pod_->v4);
  EXPECT_EQ(inode_of(table_->place(kUid).path), inode_of(pod_->netns.path()))
      << table_->place(kUid).problem;
}

TEST_F(PodsFind, by_cgroups_as_the_systemd_driver_makes_them_and_an_ipv6_address) {
  start_process({"kubepods.slice", "kubepods-besteffort.slice",
                 "kubepods-besteffort-pod7e57ab1e_0001_4aaa_8bbb_00c0ffee0001.slice",
                 "cri-containerd-4c1d.scope"},
                pod_->netns.path());
  look(pod_->v6);
  EXPECT_EQ(inode_of(table_->place(kUid).path), inode_of(pod_->netns.path()))
      << table_->place(kUid).problem;
}

TEST_F(PodsFind, not_a_namespace_that_has_another_pods_address) {
  start_process({"kubepods", "pod7e57ab1e-0001-4aaa-8bbb-00c0ffee0001"}, pod_->netns.path());
  look("10.255.255.1");
  EXPECT_EQ(table_->place(kUid).path, "");
  EXPECT_NE(table_->place(kUid).problem.find("10.255.255.1"), std::string::npos);
}

TEST_F(PodsFind, not_the_nodes_own_namespace) {
  start_process({"kubepods", "pod7e57ab1e-0001-4aaa-8bbb-00c0ffee0001"}, "");
  look(pod_->v4);
  EXPECT_EQ(table_->place(kUid).path, "");
  EXPECT_NE(table_->place(kUid).problem.find("node's"), std::string::npos);
}

TEST_F(PodsFind, and_keeps_the_namespace_although_the_process_has_ended) {
  start_process({"kubepods", "pod7e57ab1e-0001-4aaa-8bbb-00c0ffee0001"}, pod_->netns.path());
  look(pod_->v4);
  processes_.clear();
  EXPECT_EQ(inode_of(table_->place(kUid).path), inode_of(pod_->netns.path()));
}

// As Kata does unless sandbox_cgroup_only is set.
TEST_F(PodsFind, the_virtual_machine_of_a_pod_outside_of_its_cgroup) {
  start_outside("qemu-system-x86_64", pod_->netns.path());
  table_->attach("c1/eth0", kUid, UniqueFd(open(pod_->netns.path().c_str(), O_RDONLY | O_CLOEXEC)),
                 pods::Clock::now());
  look(pod_->v4);
  EXPECT_EQ(table_->place(kUid).sandbox, "kata");
}

TEST_F(PodsFind, no_virtual_machine_in_the_nodes_own_namespace_or_another_pods) {
  ST_ASSERT_VALUE(Pod* const other, lab_->add_pod("db"));
  start_outside("cloud-hypervisor", "");
  start_outside("firecracker", other->netns.path());
  table_->attach("c1/eth0", kUid, UniqueFd(open(pod_->netns.path().c_str(), O_RDONLY | O_CLOEXEC)),
                 pods::Clock::now());
  look(pod_->v4);
  EXPECT_EQ(table_->place(kUid).sandbox, "");
}

}  // namespace
}  // namespace sidetrack::lab
