// SPDX-License-Identifier: Apache-2.0
// How a relayed connection ends whose bytes go past the engine: as one that the engine relays
// without the fast path does.
#include "tests/dataplane/fast_endings.h"
#include "tests/dataplane/fast_scenarios.h"

namespace sidetrack::lab {
namespace {

class FastListHandoff : public FastListEndings {
 protected:
  FastListHandoff() { handoff_ = true; }
  void SetUp() override {
    FastList::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    ST_ASSERT_OK(sidetrack_->start_engine());
    ASSERT_NO_FATAL_FAILURE(redirect("shop"));
    ASSERT_NO_FATAL_FAILURE(redirect("plain"));
  }
};

std::string peek_at_parts(Ends& ends) {
  return scenarios::peek_across_a_switch(ends, [](Ends&) {});
}

TEST_F(FastListHandoff, ends_as_without_the_fast_path) {
  auto cases = endings();
  cases.push_back({"MSG_PEEK", peek_at_parts, "sent'HEA'sent peeked HEADER56789"});
  expect_all(cases, {{Where::kVeth, Ip::kV4},
                     {Where::kVeth, Ip::kV6},
                     {Where::kVeth, Ip::kMapped},
                     {Where::kService, Ip::kV4}});
}

}  // namespace
}  // namespace sidetrack::lab
