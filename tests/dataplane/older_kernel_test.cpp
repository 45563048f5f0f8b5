// SPDX-License-Identifier: Apache-2.0
// What stands in on kernels before 5.15 for what they lack, tried on this one.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/dataplane/netns_cookies.h"
#include "sidetrack/cgroup/process_cgroup.h"
#include "sidetrack/unique_fd.h"
#include "sidetrack_bpf.skel.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/netns.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

class OlderKernel : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
  }
};

struct Destroy {
  void operator()(sidetrack_bpf* skeleton) const { sidetrack_bpf::destroy(skeleton); }
};

std::vector<std::uint32_t> maps_of(int program) {
  std::vector<std::uint32_t> ids(64);
  bpf_prog_info info{};
  info.nr_map_ids = static_cast<std::uint32_t>(ids.size());
  info.map_ids = reinterpret_cast<std::uint64_t>(ids.data());
  std::uint32_t size = sizeof(info);
  EXPECT_EQ(bpf_obj_get_info_by_fd(program, &info, &size), 0);
  ids.resize(info.nr_map_ids);
  return ids;
}

TEST_F(OlderKernel, a_program_tells_the_cookie_that_the_kernel_has) {
  ST_ASSERT_VALUE(const std::string root, cgroup::find_hierarchy());
  dataplane::NetnsCookies cookies(root);
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 3; ++i) {
    ST_ASSERT_VALUE(const Netns netns, Netns::create("told"));
    ST_ASSERT_VALUE(const std::uint64_t told, netns.call([&] { return cookies.told_here(); }));
    ST_ASSERT_VALUE(const std::uint64_t kernels, netns.call([&] { return cookies.here(); }));
    EXPECT_EQ(told, kernels);
    seen.insert(told);
  }
  EXPECT_EQ(seen.size(), 3U);
}

TEST_F(OlderKernel, a_cookie_is_told_after_a_move_to_another_cgroup) {
  ST_ASSERT_VALUE(const TestCgroup cgroup, TestCgroup::create("told"));
  dataplane::NetnsCookies cookies(cgroup.path());
  ST_ASSERT_VALUE(const std::uint64_t before, cookies.told_here());
  ST_ASSERT_VALUE(const std::string home, cgroup::folder_of_process(::getpid()));
  ST_ASSERT_OK(write_existing(cgroup.path() + "/cgroup.procs", std::to_string(::getpid())));
  ST_ASSERT_VALUE(const std::uint64_t after, cookies.told_here());
  ST_ASSERT_OK(write_existing(home + "/cgroup.procs", std::to_string(::getpid())));
  EXPECT_EQ(before, after);
  EXPECT_NE(after, 0U);
}

TEST_F(OlderKernel, redirecting_programs_load_without_the_netns_helper) {
  for (const char* wanted : {"st_sockops", "st_getsockopt"}) {
    const std::unique_ptr<sidetrack_bpf, Destroy> skeleton(sidetrack_bpf::open());
    ASSERT_NE(skeleton, nullptr);
    skeleton->rodata->st_has_netns_helper = false;
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, skeleton->obj) {
      bpf_program__set_autoload(program, std::string(wanted) == bpf_program__name(program));
    }
    EXPECT_EQ(sidetrack_bpf::load(skeleton.get()), 0) << wanted;
  }
}

// Before 6.1 a kernel warns of tracing programs whose maps allocate while they run
// (check_map_prog_compatibility() in kernel/bpf/verifier.c), and some machines stop at a warning.
TEST_F(OlderKernel, tracepoints_use_no_map_that_allocates) {
  const std::unique_ptr<sidetrack_bpf, Destroy> skeleton(sidetrack_bpf::open());
  ASSERT_NE(skeleton, nullptr);
  const auto is_tracing = [](const bpf_program* program) {
    return bpf_program__type(program) == BPF_PROG_TYPE_TRACEPOINT;
  };
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton->obj) {
    bpf_program__set_autoload(program, is_tracing(program));
  }
  ASSERT_EQ(sidetrack_bpf::load(skeleton.get()), 0);
  int looked_at = 0;
  bpf_object__for_each_program(program, skeleton->obj) {
    if (!is_tracing(program)) {
      continue;
    }
    for (const std::uint32_t id : maps_of(bpf_program__fd(program))) {
      const UniqueFd map(bpf_map_get_fd_by_id(id));
      bpf_map_info info{};
      std::uint32_t size = sizeof(info);
      ASSERT_EQ(bpf_obj_get_info_by_fd(map.get(), &info, &size), 0);
      EXPECT_EQ(info.map_flags & BPF_F_NO_PREALLOC, 0U)
          << bpf_program__name(program) << " uses " << info.name;
      ++looked_at;
    }
  }
  EXPECT_GT(looked_at, 4);
}

}  // namespace
}  // namespace sidetrack::lab
