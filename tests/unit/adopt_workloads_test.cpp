// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/adopt/workloads.h"

namespace sidetrack::adopt {
namespace {

class WorkloadsTest : public ::testing::Test {
 protected:
  WorkloadsTest() : file_(::testing::TempDir() + "workloads-" + std::to_string(getpid())) {}
  ~WorkloadsTest() override { std::filesystem::remove(file_); }
  std::string file_;
};

TEST_F(WorkloadsTest, outlive_the_agent) {
  Workloads(file_).demote("shop/ReplicaSet/web", ST_FAST_FIONREAD);
  const Workloads next(file_);
  EXPECT_EQ(next.demoted("shop/ReplicaSet/web"), ST_FAST_FIONREAD);
  EXPECT_EQ(next.demoted("shop/ReplicaSet/other"), ST_FAST_NONE);
}

TEST_F(WorkloadsTest, that_get_a_file_later_have_what_is_in_it) {
  Workloads(file_).demote("shop/ReplicaSet/web", ST_FAST_FIONREAD);
  Workloads late;
  EXPECT_FALSE(late.are_kept());
  late.keep_in(file_);
  EXPECT_TRUE(late.are_kept());
  EXPECT_EQ(late.demoted("shop/ReplicaSet/web"), ST_FAST_FIONREAD);
}

TEST_F(WorkloadsTest, a_broken_file_is_begun_anew) {
  std::ofstream(file_) << "{ not json";
  Workloads workloads(file_);
  EXPECT_TRUE(workloads.all().empty());
  workloads.demote("shop/ReplicaSet/web", ST_FAST_SPLICE);
  EXPECT_EQ(Workloads(file_).demoted("shop/ReplicaSet/web"), ST_FAST_SPLICE);
}

TEST_F(WorkloadsTest, a_reason_of_another_version_still_counts) {
  std::ofstream(file_) << R"({"shop/ReplicaSet/web": "fp_of_tomorrow"})";
  EXPECT_EQ(Workloads(file_).demoted("shop/ReplicaSet/web"), ST_FAST_WORKLOAD);
}

TEST_F(WorkloadsTest, without_a_file_they_are_kept_while_the_agent_runs) {
  Workloads workloads("");
  workloads.demote("shop/ReplicaSet/web", ST_FAST_SPLICE);
  EXPECT_EQ(workloads.demoted("shop/ReplicaSet/web"), ST_FAST_SPLICE);
}

TEST_F(WorkloadsTest, that_are_forgotten_are_so_for_the_next_agent_too) {
  Workloads workloads(file_);
  workloads.demote("shop/ReplicaSet/web", ST_FAST_SPLICE);
  workloads.demote("shop/ReplicaSet/api", ST_FAST_SPLICE);
  EXPECT_TRUE(workloads.forget("shop/ReplicaSet/web"));
  EXPECT_EQ(workloads.demoted("shop/ReplicaSet/web"), ST_FAST_NONE);
  EXPECT_EQ(Workloads(file_).demoted("shop/ReplicaSet/web"), ST_FAST_NONE);
  EXPECT_EQ(Workloads(file_).demoted("shop/ReplicaSet/api"), ST_FAST_SPLICE);
  EXPECT_EQ(workloads.forget("shop/ReplicaSet/web").error().code, ErrorCode::kNotFound);
}

TEST_F(WorkloadsTest, that_cannot_be_forgotten_on_disk_are_not) {
  std::filesystem::create_directory(file_);
  Workloads workloads(file_ + "/kept");
  workloads.demote("shop/ReplicaSet/web", ST_FAST_SPLICE);
  std::filesystem::remove_all(file_);
  EXPECT_FALSE(workloads.forget("shop/ReplicaSet/web"));
  EXPECT_EQ(workloads.demoted("shop/ReplicaSet/web"), ST_FAST_SPLICE);
}

}  // namespace
}  // namespace sidetrack::adopt
