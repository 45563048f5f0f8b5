// SPDX-License-Identifier: Apache-2.0
// All the ways to write into a connection that skips TCP: the same stream as on plain TCP.
#include "tests/dataplane/fast_cases.h"

namespace sidetrack::lab {
namespace {

class FastListWriting : public FastList {};

TEST_F(FastListWriting, streams_are_those_of_tcp) {
  auto cases = writings();
  cases.push_back(urgent_byte());
  expect_all(cases);
}

}  // namespace
}  // namespace sidetrack::lab
