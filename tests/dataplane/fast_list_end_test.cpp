// SPDX-License-Identifier: Apache-2.0
// How connections that skip TCP end: the same bytes and errors as on plain TCP, on every road.
#include "tests/dataplane/fast_cases.h"

namespace sidetrack::lab {
namespace {

class FastListEnd : public FastList {};

TEST_F(FastListEnd, bytes_and_errors_are_those_of_tcp) {
  auto cases = endings();
  cases.push_back(last_words("close right after a message", 1, 40'000, 3));
  cases.push_back(last_words("close right after some", 20, 1'777, 3));
  expect_all(cases);
}

}  // namespace
}  // namespace sidetrack::lab
