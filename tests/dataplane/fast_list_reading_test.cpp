// SPDX-License-Identifier: Apache-2.0
// All the ways to read from a connection that skips TCP: the same stream as on plain TCP.
#include "tests/dataplane/fast_cases.h"

namespace sidetrack::lab {
namespace {

class FastListReading : public FastList {};

TEST_F(FastListReading, all_that_is_read_is_that_of_tcp) {
  auto cases = readings();
  cases.push_back(peeks_at_requests());
  expect_all(cases);
  expect_all({peeks_at_a_pipeline()}, {{Where::kVeth, Ip::kV4}});
  expect_all(
      {offers_to_a_sleeping_reader()},
      {{Where::kVeth, Ip::kMapped}, {Where::kLoopback, Ip::kV4}, {Where::kService, Ip::kV6}});
  if (const auto by_uring = talks_by_uring()) {
    expect_apart(*by_uring, {{Where::kVeth, Ip::kMapped},
                             {Where::kVeth, Ip::kV6, Cpu::kOther},
                             {Where::kLoopback, Ip::kV4}});
    EXPECT_EQ(reason_of("apart-2/server"), "fp_io_uring");
  }
}

}  // namespace
}  // namespace sidetrack::lab
