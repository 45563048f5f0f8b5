// SPDX-License-Identifier: Apache-2.0
// main() of test programs that are one ctest entry for many cases: whether one was skipped is in
// the exit status, since ctest takes output that says so for more than a failure.
#include <gtest/gtest.h>

namespace {

constexpr int kFailed = 1;
constexpr int kSkipped = 77;

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const bool passed = RUN_ALL_TESTS() == 0;
  const auto& all = *testing::UnitTest::GetInstance();
  if (!passed || all.test_to_run_count() == 0) {
    return kFailed;
  }
  return all.skipped_test_count() != 0 ? kSkipped : 0;
}
