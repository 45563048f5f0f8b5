// SPDX-License-Identifier: Apache-2.0
// Connections that the embedded engine relays, with the fast path on.
#include <sys/socket.h>

#include "tests/dataplane/fast_list.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

std::string close_after_last_words(Ends& ends) {
  std::string bytes(20'000, '\0');
  Pattern(kStreamSeed).fill(bytes);
  EXPECT_EQ(send_text(ends.client, bytes), "sent");
  ends.client.reset();
  return read_to_end(ends.server);
}

std::string answer_after_half_close(Ends& ends) {
  EXPECT_EQ(send_text(ends.client, "question"), "sent");
  EXPECT_EQ(::shutdown(ends.client.get(), SHUT_WR), 0);
  const std::string asked = words({receive_text(ends.server, 9), receive_text(ends.server, 9)});
  EXPECT_EQ(send_text(ends.server, "answer"), "sent");
  ends.server.reset();
  return words({asked, receive_text(ends.client, 9), receive_text(ends.client, 9)});
}

class FastListEngine : public FastList {};

TEST_F(FastListEngine, the_embedded_one_is_as_plain_tcp) {
  ST_ASSERT_OK(sidetrack_->start_engine());
  ASSERT_NO_FATAL_FAILURE(redirect("shop"));
  expect_all(
      {{"stream", streams({}), both(Pace{}.length)},
       {"a byte at a time", streams({.length = 3000, .write_bytes = 1, .writes = 64}), both(3000)},
       {"flaps around the window",
        streams({.length = 3'000'000, .write_bytes = 16384, .writes = 1000}), both(3'000'000)},
       {"close after last words", close_after_last_words, whole(20'000) + " EOF"},
       {"half-close", answer_after_half_close, "'question' EOF 'answer' EOF"}},
      {{Where::kVeth, Ip::kV4},
       {Where::kVeth, Ip::kV6},
       {Where::kVeth, Ip::kMapped},
       {Where::kService, Ip::kV4}});
}

}  // namespace
}  // namespace sidetrack::lab
