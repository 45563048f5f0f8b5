// SPDX-License-Identifier: Apache-2.0
// A socket that splice has met with bytes past TCP in its queue: until the agent has ended the
// connection, nothing may come to it by TCP, whatever else happens to its ends or in other pods.
// The agent does nothing here until it is woken.
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>

#include <functional>
#include <thread>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/shared_fast_node.h"

namespace sidetrack::lab {
namespace {

// On one CPU, each of which keeps the newest rows of an LRU map for itself. Twice as many as there
// are rows: what was looked at lives for one round more.
Result<void> mark_many_on(std::size_t cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  if (::sched_setaffinity(0, sizeof(one), &one) != 0) {
    return errno_error("stay on one CPU", errno);
  }
  for (int i = 0; i < 2 * ST_MAX_MARKS; ++i) {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid() || cookie_of(fd) == 0 || ::fcntl(fd.get(), F_SETFL, 0) != 0) {
      return errno_error("make a socket blocking", errno);
    }
  }
  return {};
}

class FastMarks : public SharedFastNode {
 protected:
  void SetUp() override {
    SharedFastNode::SetUp();
    spoil();  // the server's pod is demoted
  }
  // "past" waits at the server, and splice has not seen it.
  Ends open_conflict() {
    Ends ends = open_fast();
    EXPECT_EQ(send_text(ends.client, "past"), "sent");
    EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'p'");
    stop_agent();
    EXPECT_EQ(scenarios::splice_some(ends.server), "EAGAIN");
    return ends;
  }
  void expect_ended(const Ends& ends) {
    wake_agent();
    EXPECT_EQ(receive_text(ends.server, 99), "'past'");
    EXPECT_EQ(receive_text(ends.server, 99), "ECONNABORTED");
    std::string refused;
    EXPECT_TRUE(eventually(kPatience, [&] {
      refused = send_text(ends.client, "then");
      return refused == "ECONNRESET" || refused == "EPIPE";
    })) << refused;
  }
  // Something that a pod can do meanwhile.
  void expect_refused_after(const std::function<void(Ends&)>& step) {
    Ends ends = open_conflict();
    step(ends);
    EXPECT_EQ(send_text(ends.client, "then"), "EACCES");
    EXPECT_EQ(scenarios::splice_some(ends.server), "EAGAIN");
    expect_ended(ends);
  }
  static void mark_many(const Pod& pod) {
    cpu_set_t allowed;
    ASSERT_EQ(::sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &allowed)) {
        ST_ASSERT_OK(pod.netns.run([cpu] { return mark_many_on(cpu); }));
      }
    }
  }
  [[nodiscard]] bool is_in(const char* map, std::uint64_t cookie) const {
    const auto found = KernelView(sidetrack_->pin_dir()).has_row(map, cookie);
    EXPECT_TRUE(found.has_value()) << found.error().message;
    return found && *found;
  }
};

TEST_F(FastMarks, of_other_pods_push_no_conflict_out) {
  std::uint64_t cookie = 0;
  expect_refused_after([&](Ends& ends) {
    cookie = cookie_of(ends.server);
    mark_many(*plain_.client);
    EXPECT_FALSE(is_in("st_marks", cookie)) << "the others were too few";
  });
  EXPECT_TRUE(eventually(kPatience, [&] { return !is_in("st_kept_marks", cookie); }));
}

TEST_F(FastMarks, a_socket_in_conflict_that_is_made_blocking_stays_in_conflict) {
  expect_refused_after([](Ends& ends) { EXPECT_EQ(::fcntl(ends.server.get(), F_SETFL, 0), 0); });
}

TEST_F(FastMarks, a_sender_that_would_use_tcp_anyway_is_refused_too) {
  expect_refused_after([](Ends& ends) { set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1); });
}

TEST_F(FastMarks, the_half_close_of_a_reader_in_conflict_opens_no_way) {
  expect_refused_after([](Ends& ends) {
    EXPECT_EQ(::shutdown(ends.server.get(), SHUT_WR), 0);
    EXPECT_EQ(receive_text(ends.client, 9), "EOF");
  });
}

// Where TCP brings nothing any more, it says why.
TEST_F(FastMarks, a_sender_that_has_ended_hears_what_tcp_says) {
  Ends ends = open_conflict();
  EXPECT_EQ(::shutdown(ends.client.get(), SHUT_WR), 0);
  EXPECT_EQ(send_text(ends.client, "then"), "EPIPE");
  wake_agent();
}

}  // namespace
}  // namespace sidetrack::lab
