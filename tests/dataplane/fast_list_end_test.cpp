// SPDX-License-Identifier: Apache-2.0
// How connections that skip TCP end: the same bytes and errors as on plain TCP, on every road.
#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_endings.h"
#include "tests/dataplane/fast_list.h"

namespace sidetrack::lab {
namespace {

class FastListEnd : public FastList {};

TEST_F(FastListEnd, bytes_and_errors_are_those_of_tcp) {
  using namespace endings;
  constexpr int kMany = ST_FAST_MESSAGES + 88;  // more than fit past TCP: bytes in both queues
  const std::string over = "over";
  expect_all({
      {"close right after a byte", last_words(1, 1), all_of(1, 1), {}, 3},
      {"close right after a message", last_words(1, 40'000), all_of(1, 40'000), {}, 3},
      {"close right after some", last_words(20, 1'777), all_of(20, 1'777), {}, 3},
      {"close right after many", last_words(kMany, 50), all_of(kMany, 50), {}, 3},
      {"half-close both roads", half_close_both_ways,
       "sent EPIPE 'last' EOF EPIPE EOF sent EPIPE 'last' EOF EPIPE EOF "},
      {"stream after a half-close",
       stream_after_half_close,
       "EOF " + whole(1'000'000) + " EOF",
       {},
       1,
       "fp_state"},
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
      {"peer closes while we send", peer_closes_while_we_send, over, {}, 3},
  });
}

}  // namespace
}  // namespace sidetrack::lab
