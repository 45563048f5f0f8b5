// SPDX-License-Identifier: Apache-2.0
// Whether a connection to an address ends at a listener.
#include <gtest/gtest.h>

#include "agent/main/external_engine.h"

namespace sidetrack::agent {
namespace {

struct Row {
  const char* name;
  const char* listener;
  bool v6_only;
  const char* address;
  bool listens;
};

class ListensOn : public ::testing::TestWithParam<Row> {};

TEST_P(ListensOn, is_as_the_kernel_would_decide) {
  const NodeListener listener{.address = policy::parse_address(GetParam().listener).value(),
                              .port = 15001,
                              .v6_only = GetParam().v6_only};
  EXPECT_EQ(listens_on(listener, {.address = policy::parse_address(GetParam().address).value(),
                                  .port = 15001}),
            GetParam().listens);
}

INSTANTIATE_TEST_SUITE_P(All, ListensOn,
                         ::testing::Values(Row{"its_own_v4", "10.1.2.3", false, "10.1.2.3", true},
                                           Row{"another_v4", "10.1.2.4", false, "10.1.2.3", false},
                                           Row{"any_v4", "0.0.0.0", false, "10.1.2.3", true},
                                           Row{"any_v4_not_for_v6", "0.0.0.0", false, "fd00::1",
                                               false},
                                           Row{"its_own_v6", "fd00::1", false, "fd00::1", true},
                                           Row{"any_v6", "::", false, "fd00::1", true},
                                           Row{"any_v6_also_for_v4", "::", false, "10.1.2.3", true},
                                           Row{"any_v6_only", "::", true, "10.1.2.3", false},
                                           Row{"any_v6_only_for_v6", "::", true, "fd00::1", true}),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(ListensOnPort, needs_the_same_port) {
  const st_addr address = policy::parse_address("10.1.2.3").value();
  EXPECT_FALSE(
      listens_on({.address = address, .port = 15002}, {.address = address, .port = 15001}));
}

}  // namespace
}  // namespace sidetrack::agent
