// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include <fstream>
#include <optional>
#include <string>
#include <thread>

#include "agent/main/instance_lock.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// What is said where the folder is a full file system of its own, mounted with these options: for a
// thread of a mount namespace of its own alone. None: that cannot be made here.
std::optional<Error> error_where_full(const std::string& folder, const char* mount_options) {
  std::optional<Error> error;
  std::jthread([&] {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", folder.c_str(), "tmpfs", 0, mount_options) != 0) {
      return;
    }
    std::ofstream(folder + "/rest") << std::string(1U << 16U, 'x');
    const auto lock = InstanceLock::acquire(folder);
    error = lock ? make_error(ErrorCode::kInternal, "it was taken") : lock.error();
  }).join();
  return error;
}

TEST(InstanceLock, a_full_file_system_is_named_with_its_option) {
  auto folder = lab::TempDir::create("lock");
  ASSERT_TRUE(folder) << folder.error().message;
  const std::string path = folder->path().string();
  for (const char* full : {"size=4k", "nr_inodes=1"}) {
    const auto error = error_where_full(path, full);
    if (!error) {
      GTEST_SKIP() << "no mount namespace of our own can be made here";
    }
    EXPECT_EQ(error->code, ErrorCode::kFull) << full;
    EXPECT_THAT(error->message, StartsWith("--state-dir " + path + ": its file system is full"));
    EXPECT_THAT(error->message, HasSubstr("No space left on device"));
  }
}

}  // namespace
}  // namespace sidetrack::agent
