// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "sidetrack/cgroup/process_cgroup.h"

namespace sidetrack::cgroup {
namespace {

TEST(CgroupFolder, is_the_path_below_the_mount) {
  const auto folder =
      find_folder("4:memory:/x\n0::/sidetrack/engine\n",
                  "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n");
  EXPECT_EQ(folder.value(), "/sys/fs/cgroup/unified/sidetrack/engine");
}

TEST(CgroupFolder, takes_the_root_of_the_mount_off) {
  const auto folder =
      find_folder("0::/pod/engine\n", "41 31 0:38 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  EXPECT_EQ(folder.value(), "/sys/fs/cgroup/engine");
}

TEST(CgroupFolder, is_an_error_without_cgroup2) {
  EXPECT_FALSE(find_folder("4:memory:/x\n", "41 31 0:38 / /sys rw - sysfs sysfs rw\n"));
}

TEST(CgroupFolder, of_a_container_is_found_on_the_mount_that_shows_the_whole_tree) {
  const auto folder = find_folder("0::/kubepods/pod1/engine\n",
                                  "60 59 0:38 /../../other /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"
                                  "61 59 0:38 / /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  EXPECT_EQ(folder.value(), "/host/sys/fs/cgroup/kubepods/pod1/engine");
}

TEST(CgroupHierarchy, is_where_the_whole_tree_is_mounted) {
  const auto found = find_hierarchy(
      "60 59 0:38 /kubepods/pod1/agent /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"
      "61 59 0:38 / /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  EXPECT_EQ(found.value(), "/host/sys/fs/cgroup");
}

TEST(CgroupHierarchy, that_is_mounted_only_in_part_is_not_taken_for_the_whole) {
  const auto found = find_hierarchy("60 59 0:38 /pod1 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kInvalid);
  EXPECT_EQ(found.error().message,
            "/sys/fs/cgroup shows only the part /pod1 of cgroup2: mount the host's whole cgroup2");
}

TEST(CgroupHierarchy, may_be_mounted_nowhere) {
  const auto found = find_hierarchy("41 31 0:38 / /sys rw - sysfs sysfs rw\n");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace sidetrack::cgroup
