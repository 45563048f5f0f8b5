// SPDX-License-Identifier: Apache-2.0
// To which cgroup each program is attached, as the kernel says it.
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sidetrack/unique_fd.h"
#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

class Links : public FaultNode {
 protected:
  void SetUp() override {
    FaultNode::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) {
      start_sidetrack();
    }
  }
  // How many programs of this kind a cgroup has; -1: it does not say.
  static int attached(const std::string& cgroup, bpf_attach_type type) {
    const UniqueFd fd(::open(cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    bpf_attr attributes{};
    attributes.query.target_fd = static_cast<std::uint32_t>(fd.get());
    attributes.query.attach_type = type;
    return ::syscall(SYS_bpf, BPF_PROG_QUERY, &attributes, sizeof(attributes)) == 0
               ? static_cast<int>(attributes.query.prog_cnt)
               : -1;
  }
  // SO_ORIGINAL_DST (getsockopt) and the engine's reports (setsockopt): no other process of the
  // node meets these programs. All others see every pod.
  void expect_each_where_it_belongs() {
    const std::string& engine = sidetrack_->engine_cgroup();
    ST_ASSERT_VALUE(const std::uint64_t engine_id, cgroup_id(engine));
    ST_ASSERT_VALUE(const auto links, KernelView(sidetrack_->pin_dir()).links());
    std::map<std::string, int> options;
    for (const auto& [name, cgroup] : links) {
      const std::string program = name.substr(0, name.find("sockopt") + 7);
      if (program == "st_getsockopt" || program == "st_setsockopt") {
        EXPECT_EQ(cgroup, engine_id) << name;
        ++options[program];
      } else {
        EXPECT_EQ(cgroup, cgroup_->id()) << name;
      }
    }
    EXPECT_EQ(options, (std::map<std::string, int>{{"st_getsockopt", 1}, {"st_setsockopt", 1}}));
    EXPECT_TRUE(links.contains("st_connect4") && links.contains("st_sockops"));
    for (const bpf_attach_type type : {BPF_CGROUP_GETSOCKOPT, BPF_CGROUP_SETSOCKOPT}) {
      EXPECT_EQ(attached(engine, type), 1);
      EXPECT_EQ(attached(cgroup_->path(), type), 0);
    }
  }
};

TEST_F(Links, original_destinations_are_told_in_the_engines_cgroup_only) {
  expect_each_where_it_belongs();
}

TEST_F(Links, are_where_they_were_after_agent_and_engine_came_again) {
  sidetrack_->agent().kill_hard();
  sidetrack_->engine().kill_hard();
  ST_ASSERT_OK(sidetrack_->start());
  wait_enrolled();
  expect_each_where_it_belongs();
}

}  // namespace
}  // namespace sidetrack::lab
