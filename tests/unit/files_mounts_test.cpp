// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "sidetrack/files/mounts.h"

namespace sidetrack::files {
namespace {

TEST(Mounts, are_read_past_their_optional_fields) {
  const auto mounts = parse_mountinfo(
      "30 23 0:26 /pod /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw\n"
      "31 23 0:27 / /sys/fs/bpf rw - bpf bpf rw\n");
  ASSERT_EQ(mounts.size(), 2U);
  EXPECT_EQ(mounts[0].root, "/pod");
  EXPECT_EQ(mounts[0].point, "/sys/fs/cgroup");
  EXPECT_EQ(mounts[0].type, "cgroup2");
  EXPECT_EQ(mounts[1].point, "/sys/fs/bpf");
  EXPECT_EQ(mounts[1].type, "bpf");
}

TEST(Mounts, may_have_any_byte_in_their_path) {
  const auto mounts = parse_mountinfo("30 23 0:26 / /mnt/a\\040b\\134c\\04 rw - bpf bpf rw\n");
  ASSERT_EQ(mounts.size(), 1U);
  EXPECT_EQ(mounts[0].point, "/mnt/a b\\c\\04");
}

TEST(Mounts, are_none_in_what_is_no_mountinfo) {
  EXPECT_TRUE(parse_mountinfo("").empty());
  EXPECT_TRUE(parse_mountinfo("30 23 0:26 / /mnt rw -\ngarbage\n").empty());
}

}  // namespace
}  // namespace sidetrack::files
