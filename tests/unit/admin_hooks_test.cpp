// SPDX-License-Identifier: Apache-2.0
// What needs root: programs on the hooks of a cgroup of the test's own.
#include <bpf/bpf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string>

#include "agent/ctl/hooks.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::ctl {
namespace {

// A cgroup that goes with the object; programs attached to it go too.
class OwnCgroup {
 public:
  OwnCgroup()
      : path_(cgroup2_dir({.root = "", .kernel_release = ""}) + "/st-hooks-test-" +
              std::to_string(::getpid())) {
    made_ = ::mkdir(path_.c_str(), 0755) == 0;
  }
  ~OwnCgroup() { ::rmdir(path_.c_str()); }
  OwnCgroup(const OwnCgroup&) = delete;
  OwnCgroup& operator=(const OwnCgroup&) = delete;
  [[nodiscard]] bool made() const { return made_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool made_ = false;
};

// A program that allows every connect(): r0 = 1; exit.
UniqueFd allow_all() {
  std::array<bpf_insn, 2> code{};
  code[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
  code[0].imm = 1;
  code[1].code = BPF_JMP | BPF_EXIT;
  bpf_prog_load_opts options{};
  options.sz = sizeof(options);
  options.expected_attach_type = BPF_CGROUP_INET4_CONNECT;
  return UniqueFd(bpf_prog_load(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, "theirs", "GPL", code.data(),
                                code.size(), &options));
}

TEST(Hooks, programs_of_others_are_found_by_hook_and_name) {
  const OwnCgroup cgroup;
  if (!cgroup.made()) {
    GTEST_SKIP() << "no cgroup of our own can be made here";
  }
  const auto program = allow_all();
  if (!program.valid()) {
    GTEST_SKIP() << "no BPF program may be loaded here";
  }
  const UniqueFd fd(::open(cgroup.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(bpf_prog_attach(program.get(), fd.get(), BPF_CGROUP_INET4_CONNECT, BPF_F_ALLOW_MULTI),
            0);
  const auto found = hooked_programs(cgroup.path());
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(found->front().hook, "cgroup/connect4");
  EXPECT_EQ(found->front().name, "theirs");
  EXPECT_GT(found->front().id, 0U);
}

TEST(Hooks, missing_cgroup_is_an_error) {
  EXPECT_FALSE(hooked_programs("/nonexistent"));
}

TEST(Hooks, folder_without_pins_has_no_programs) {
  EXPECT_TRUE(pinned_programs("/nonexistent").empty());
}

}  // namespace
}  // namespace sidetrack::ctl
