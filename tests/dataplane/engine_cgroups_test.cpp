// SPDX-License-Identifier: Apache-2.0
// Programs on the cgroups of several engines, as they come and go.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/dataplane/dataplane.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

using dataplane::ProgramState;
using testing::Each;
using testing::Field;
using testing::SizeIs;

class EngineCgroups : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("engines"));
    cgroup_.emplace(std::move(cgroup));
    pin_dir_ = "/sys/fs/bpf/" + unique_name("engines");
    ST_ASSERT_VALUE(dataplane_, dataplane::Dataplane::open(
                                    {.pin_dir = pin_dir_, .cgroup_dir = cgroup_->path()}));
  }
  void TearDown() override {
    dataplane_.reset();
    if (!pin_dir_.empty()) {
      EXPECT_TRUE(dataplane::Dataplane::uninstall(pin_dir_));
    }
  }
  // The programs that only engines' cgroups have.
  [[nodiscard]] std::vector<ProgramState> of_engines() const {
    std::vector<ProgramState> found;
    for (const ProgramState& program : dataplane_->programs()) {
      if (program.name.ends_with("sockopt")) {
        found.push_back(program);
      }
    }
    return found;
  }

  std::string pin_dir_;
  std::optional<TestCgroup> cgroup_;
  std::unique_ptr<dataplane::Dataplane> dataplane_;
};

TEST_F(EngineCgroups, one_that_is_gone_is_no_program_that_is_missing) {
  ST_ASSERT_VALUE(const std::string ended, cgroup_->child("ended"));
  ST_ASSERT_VALUE(const std::string serving, cgroup_->child("serving"));
  ST_ASSERT_VALUE(const std::uint64_t gone, dataplane_->attach_engine(ended));
  ST_ASSERT_VALUE(const std::uint64_t id, dataplane_->attach_engine(serving));
  EXPECT_THAT(of_engines(), SizeIs(4));
  ASSERT_EQ(::rmdir(ended.c_str()), 0);
  EXPECT_THAT(of_engines(), SizeIs(2));
  EXPECT_THAT(of_engines(), Each(Field(&ProgramState::cgroup_id, id)));
  EXPECT_THAT(dataplane_->programs(), Each(Field(&ProgramState::attached, true)));
  EXPECT_NE(gone, id);
}

}  // namespace
}  // namespace sidetrack::lab
