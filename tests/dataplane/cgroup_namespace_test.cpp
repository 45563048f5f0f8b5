// SPDX-License-Identifier: Apache-2.0
// What a container on a pure cgroup2 node sees: a cgroup namespace that begins at its own cgroup.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sidetrack/cgroup/process_cgroup.h"
#include "tests/lab/cgroup.h"

namespace sidetrack::lab {
namespace {

// Runs `body` in a child that is in `cgroup` and in a cgroup namespace of its own; its exit status.
template <typename Body>
int in_container(const TestCgroup& cgroup, Body body) {
  const pid_t child = fork();
  if (child == 0) {
    const bool ready = cgroup.add(getpid()) && unshare(CLONE_NEWCGROUP) == 0;
    _exit(ready ? body() : 100);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

TEST(CgroupNamespace, of_a_container_is_left_for_the_hosts) {
  auto cgroup = TestCgroup::create("namespace");
  ASSERT_TRUE(cgroup) << cgroup.error().message;
  const int status = in_container(*cgroup, [&] {
    const auto before = cgroup::folder_of_process(getpid());
    if (before && *before == cgroup->path()) {
      return 1;  // it is in no namespace of its own: nothing is shown by this
    }
    if (!cgroup::join_host_namespace("/proc/" + std::to_string(getppid()) + "/ns/cgroup")) {
      return 2;
    }
    const auto after = cgroup::folder_of_process(getpid());
    return after && *after == cgroup->path() && cgroup::own_id().value_or(0) == cgroup->id() ? 0
                                                                                             : 3;
  });
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace sidetrack::lab
