// SPDX-License-Identifier: Apache-2.0
// Relayed connections whose bytes go past the engine: they begin, end and are read and written as
// those that the engine relays without the fast path. (Inside of a pod nothing is relayed.)
#include "tests/dataplane/fast_cases.h"
#include "tests/dataplane/fast_scenarios.h"

namespace sidetrack::lab {
namespace {

class FastListHandoff : public FastList {
 protected:
  FastListHandoff() {
    handoff_ = true;
    redirected_ = {"shop", "plain"};
  }
  static std::vector<Road> roads() {
    std::vector<Road> roads = {{Where::kVeth, Ip::kV4},
                               {Where::kVeth, Ip::kV6},
                               {Where::kVeth, Ip::kMapped},
                               {Where::kService, Ip::kV4}};
    if (all_roads().back().cpu == Cpu::kOther) {
      roads.push_back({Where::kVeth, Ip::kV6, Cpu::kOther});
    }
    return roads;
  }
};

std::string peek_at_parts(Ends& ends) {
  return scenarios::peek_across_a_switch(ends, [](Ends&) {});
}

TEST_F(FastListHandoff, ends_as_without_the_fast_path) {
  auto cases = endings();
  cases.push_back({"MSG_PEEK", peek_at_parts, "sent'HEA'sent peeked HEADER56789"});
  expect_all(cases, roads());
}

TEST_F(FastListHandoff, is_read_as_without_the_fast_path) {
  auto cases = readings();
  cases.push_back(peeks_at_requests());
  expect_all(cases, roads());
  expect_all({peeks_at_a_pipeline()}, {{Where::kVeth, Ip::kV4}});
  // The buffers of two connections, and the engine's: docs/deviations.md, 14.
  expect_all({offers_to_a_sleeping_reader(2 * kMoreThanBuffers)},
             {{Where::kVeth, Ip::kMapped}, {Where::kService, Ip::kV6}});
}

TEST_F(FastListHandoff, is_written_as_without_the_fast_path) {
  auto cases = writings();
  cases.push_back(urgent_byte_of_a_relay());
  expect_all(cases, roads());
}

// At either end.
TEST_F(FastListHandoff, late_calls_are_as_without_the_fast_path) {
  std::vector<Case> cases;
  for (const Case& one : late_calls()) {
    cases.push_back(one);
    cases.push_back(mirrored(one));
  }
  expect_all(cases, roads());
}

TEST_F(FastListHandoff, calls_that_demote_a_pod_are_as_without_the_fast_path) {
  expect_apart(asks_with_fionread(), {{Where::kVeth, Ip::kV6}});
  EXPECT_EQ(reason_of("apart-0/server"), "fp_fionread");
  expect_apart(mirrored(asks_with_fionread()), {{Where::kVeth, Ip::kMapped}});
  EXPECT_EQ(reason_of("apart-1/client"), "fp_fionread");
  if (const auto by_uring = talks_by_uring()) {
    expect_apart(*by_uring, {{Where::kVeth, Ip::kV4}});
    EXPECT_EQ(reason_of("apart-2/server"), "fp_io_uring");
  }
}

}  // namespace
}  // namespace sidetrack::lab
