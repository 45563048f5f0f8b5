// SPDX-License-Identifier: Apache-2.0
// How a relayed connection ends whose bytes go past the engine: as one that the engine relays
// without the fast path does.
#include <sys/socket.h>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_endings.h"
#include "tests/dataplane/fast_list.h"
#include "tests/dataplane/fast_scenarios.h"

namespace sidetrack::lab {
namespace {

class FastListHandoff : public FastList {
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
  using namespace endings;
  constexpr int kMany = ST_FAST_MESSAGES + 88;  // more than fit past the engine
  const std::string over = "over";
  expect_all(
      {{"close right after a byte", last_words(1, 1), all_of(1, 1), {}, 3},
       {"close right after many", last_words(kMany, 50), all_of(kMany, 50), {}, 3},
       {"half-close both ways", half_close_both_ways,
        "sent EPIPE 'last' EOF EPIPE EOF sent EPIPE 'last' EOF EPIPE EOF "},
       {"stream after a half-close",
        stream_after_half_close,
        "EOF " + whole(1'000'000) + " EOF",
        {},
        1,
        "fp_state"},
       {"MSG_PEEK", peek_at_parts, "sent'HEA'sent peeked HEADER56789"},
       {"SHUT_RD", stop_reading, "sent 'before' EOF sent 'answer'"},
       {"close with unread bytes", close_with_unread, "sent ECONNRESET over", "sent EOF over"},
       {"close on a full queue", close_on_a_full_queue, over},
       {"SO_LINGER 0 after last words", abort_after_last_words, "sent 'last' ECONNRESET EOF EPIPE"},
       {"SO_LINGER 0 with unread bytes", abort_with_unread, "sent ECONNRESET EPIPE"},
       {"SOCK_DESTROY", destroyed_by_the_administrator,
        "sent sent 'back' ECONNABORTED EOF 'there' ECONNRESET EOF"},
       {"kill -9 after last words", killed_after_last_words, all_of(30, 1000)},
       {"kill -9 while it sends", killed_while_it_sends, "in order EOF"},
       {"kill -9 while it reads", killed_while_it_reads, over},
       {"peer closes while we send", peer_closes_while_we_send, over, {}, 3}},
      {{Where::kVeth, Ip::kV4},
       {Where::kVeth, Ip::kV6},
       {Where::kVeth, Ip::kMapped},
       {Where::kService, Ip::kV4}});
}

}  // namespace
}  // namespace sidetrack::lab
