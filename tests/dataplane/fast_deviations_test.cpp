// SPDX-License-Identifier: Apache-2.0
// How applications can tell that their connection skips TCP. dNN_...: deviation NN of
// docs/deviations.md, seen on plain TCP and past it.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#ifdef ST_HAS_URING
#include <liburing.h>
#endif

#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/shared_fast_node.h"

namespace sidetrack::lab {
namespace {

constexpr milliseconds kNothingComes{100};

using FastDeviations = SharedFastNode;

// The agent is late: else it takes the socket out before a reader can sleep in it.
TEST_F(FastDeviations, d21_a_socket_made_blocking_can_see_eagain) {
  const auto make_blocking = [](Ends& ends) {
    ::fcntl(ends.client.get(), F_SETFL, ::fcntl(ends.client.get(), F_GETFL) & ~O_NONBLOCK);
  };
  Ends slow = open(false);
  EXPECT_EQ(scenarios::wait_for_an_answer(slow, make_blocking), "'answer'");
  Ends fast = open_fast();
  stop_agent();
  EXPECT_EQ(scenarios::wait_for_an_answer(fast, make_blocking), "EAGAIN");
  wake_agent();
  EXPECT_EQ(receive_text(fast.client, 9), "'answer'");
}

TEST_F(FastDeviations, d20_counters_of_tcp_do_not_see_the_bytes) {
  using Counts = std::pair<std::uint64_t, std::uint64_t>;  // sent, received
  const auto count = [](Ends& ends) {
    tcp_info before{}, after{};
    socklen_t size = sizeof(before);
    const auto look = [&](const UniqueFd& fd, tcp_info& info) {
      EXPECT_EQ(::getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    };
    const std::uint64_t sent = sent_by_tcp(ends.client);
    look(ends.server, before);
    EXPECT_EQ(send_text(ends.client, std::string(1000, 'c')), "sent");
    EXPECT_EQ(scenarios::receive_all(ends.server, 1000), std::string(1000, 'c'));
    look(ends.server, after);
    return Counts{sent_by_tcp(ends.client) - sent,
                  after.tcpi_bytes_received - before.tcpi_bytes_received};
  };
  Ends slow = open(false);
  EXPECT_EQ(count(slow), (Counts{1000, 1000}));
  Ends fast = open_fast();
  // Any message may go by TCP after all, as when the agent gets no time.
  EXPECT_TRUE(eventually(kPatience, [&] { return count(fast) == Counts{0, 0}; }));
}

TEST_F(FastDeviations, d25_calls_for_the_queue_of_tcp_see_nothing_of_the_other) {
  const auto discard = [](const UniqueFd& fd) {
    const ssize_t count = ::recv(fd.get(), nullptr, 4, MSG_TRUNC | MSG_DONTWAIT);
    return count < 0 ? std::string(::strerrorname_np(errno)) : std::to_string(count);
  };
  const auto zerocopy = [](const UniqueFd& fd) {
    constexpr std::size_t kPage = 4096;
    void* memory = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd.get(), 0);
    EXPECT_NE(memory, MAP_FAILED);
    tcp_zerocopy_receive request{};
    request.address = reinterpret_cast<std::uintptr_t>(memory);
    request.length = kPage;
    socklen_t size = sizeof(request);
    EXPECT_EQ(::getsockopt(fd.get(), IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, &request, &size), 0);
    ::munmap(memory, kPage);
    return std::to_string(request.length) + " " + std::to_string(request.recv_skip_hint);
  };
  const auto say = [&](Ends& ends) {
    EXPECT_EQ(send_text(ends.client, "discarded"), "sent");
    EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'d'");
    std::string said = zerocopy(ends.server);  // each after the one before
    said += " " + discard(ends.server);
    said += " " + receive_text(ends.server, 9);
    return said;
  };
  const std::string by_tcp = "0 9 4 'arded'", past_it = "0 0 EFAULT 'discarded'";
  Ends slow = open(false);
  EXPECT_EQ(say(slow), by_tcp);
  Ends fast = open_fast();
  std::string last;
  EXPECT_TRUE(eventually(kPatience, [&] { return (last = say(fast)) != by_tcp; }));
  EXPECT_EQ(last, past_it);
}

// One reader has chosen TCP; the other one reads what the first was to read. The first is held only
// where the machine has something else to run: a try may miss.
TEST_F(FastDeviations, d25_of_two_readers_one_can_get_later_bytes_first) {
  const auto attack = [](Ends& ends) -> std::string {
    set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);  // by TCP
    EXPECT_EQ(send_text(ends.client, "first"), "sent");
    EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
    HeldReceive one(ends.server);
    one.unlock();
    if (receive_text(ends.server, 5, 0, kNothingComes) != "'first'") {
      return one.finish() == "first" ? "missed" : "lost";
    }
    set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 0);
    EXPECT_EQ(send_text(ends.client, "second "), "sent");
    set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);
    EXPECT_EQ(send_text(ends.client, "third"), "sent");
    EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
    const std::string begin = one.finish();
    return begin + scenarios::receive_all(ends.server, 12 - begin.size());
  };
  std::string last;
  const auto says = [&](Ends& ends, const std::string& expected) {
    return eventually(kPatience, [&] { return (last = attack(ends)) != "missed"; }) &&
           last == expected;
  };
  Ends slow = open(false);
  EXPECT_TRUE(says(slow, "second third")) << last;
  Ends fast = open_fast();
  EXPECT_TRUE(eventually(kPatience, [&] { return says(fast, "thirdsecond "); })) << last;
}

// Until the agent has ended it, nothing may come before what splice has not seen.
TEST_F(FastDeviations, d24_splice_on_bytes_that_skipped_tcp_ends_the_connection) {
  spoil();  // the server's pod is demoted
  const auto splice = [](Ends& ends) {
    EXPECT_EQ(send_text(ends.client, "past"), "sent");
    EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'p'");
    return scenarios::splice_some(ends.server);
  };
  Ends slow = open(false);
  EXPECT_EQ(splice(slow), "4");
  Ends fast = open_fast();
  stop_agent();
  EXPECT_EQ(splice(fast), "EAGAIN");
  EXPECT_EQ(send_text(fast.client, "refused"), "EACCES");
  wake_agent();
  EXPECT_EQ(receive_text(fast.client, 9), "ECONNRESET");
  EXPECT_EQ(receive_text(fast.server, 99), "'past'");
  EXPECT_EQ(receive_text(fast.server, 99), "ECONNABORTED");
}

// The one way to read bytes in the wrong order: that splice is the pod's first, and cannot be held.
TEST_F(FastDeviations, d24_splice_takes_bytes_of_tcp_before_those_that_skipped_it) {
  spoil();  // the server's pod is demoted
  Ends ends = open_fast();
  EXPECT_EQ(send_text(ends.client, "first"), "sent");
  set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);  // by TCP
  EXPECT_EQ(send_text(ends.client, "then"), "sent");
  EXPECT_TRUE(eventually(kPatience, [&] { return is_acknowledged(ends.client); }));
  EXPECT_EQ(scenarios::splice_some(ends.server), "4");
  EXPECT_EQ(receive_text(ends.client, 9), "ECONNRESET");
  EXPECT_EQ(receive_text(ends.server, 99), "'first'");
  EXPECT_EQ(receive_text(ends.server, 99), "ECONNABORTED");
}

TEST_F(FastDeviations, d27_the_receive_buffer_is_larger_unless_the_application_set_it) {
  constexpr int kMuch = 3 * 1024 * 1024;  // TCP does not begin with it
  const auto buffer_of = [](const UniqueFd& socket) {
    int bytes = 0;
    socklen_t size = sizeof(bytes);
    EXPECT_EQ(::getsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &bytes, &size), 0);
    return bytes;
  };
  Ends slow = open(false);
  EXPECT_LT(buffer_of(slow.server), kMuch);
  Ends fast = open(true);
  set_option(fast.client, SOL_SOCKET, SO_RCVBUF, 65536);
  const int own = buffer_of(fast.client);
  make_fast({&fast});
  EXPECT_TRUE(eventually(kPatience, [&] { return buffer_of(fast.server) >= kMuch; }));
  EXPECT_EQ(buffer_of(fast.client), own);
}

// What each recv() says, to the end.
std::string reads_of(const UniqueFd& reader) {
  std::string said;
  std::array<char, 4096> bytes{};
  ssize_t got = 0;
  while ((got = ::recv(reader.get(), bytes.data(), bytes.size(), 0)) > 0) {
    said += std::to_string(got) + " ";
  }
  return said + (got == 0 ? "EOF" : ::strerrorname_np(errno));
}

TEST_F(FastDeviations, d36_the_end_is_known_when_what_skipped_tcp_is_read) {
  const auto run = [](Ends ends) {
    scenarios::fill_both_queues(ends.client);
    ::shutdown(ends.client.get(), SHUT_WR);
    const auto knows_of_end = [&](milliseconds within) {
      pollfd wanted{ends.server.get(), POLLRDHUP, 0};
      return ::poll(&wanted, 1, static_cast<int>(within.count())) == 1 ? "end " : "no end ";
    };
    std::string said = knows_of_end(kNothingComes);
    said += reads_of(ends.server) + " ";
    return said + knows_of_end(kPatience);
  };
  EXPECT_EQ(run(open(false)), "end 517 EOF end ");
  EXPECT_EQ(run(open_fast()), "no end 512 5 EAGAIN end ");
}

TEST_F(FastDeviations, d36_after_a_reset_a_short_read_is_not_the_last) {
  const auto run = [](Ends ends) {
    scenarios::fill_both_queues(ends.client);
    const linger now{.l_onoff = 1, .l_linger = 0};
    EXPECT_EQ(::setsockopt(ends.client.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    ends.client.reset();
    pollfd wanted{ends.server.get(), POLLRDHUP, 0};
    EXPECT_EQ(::poll(&wanted, 1, static_cast<int>(kPatience.count())), 1);
    return reads_of(ends.server);
  };
  EXPECT_EQ(run(open(false)), "517 ECONNRESET");
  EXPECT_EQ(run(open_fast()), "512 5 ECONNRESET");
}

#ifdef ST_HAS_URING
// Joining the map takes SOCK_SUPPORT_ZC from a socket, and nothing gives it back.
TEST_F(FastDeviations, d34_send_zc_fails_on_a_socket_that_was_adopted_before_the_ring_was_made) {
  spoil();  // the client's pod is demoted
  const auto send_zc = [](io_uring& ring, const UniqueFd& fd) {
    ::io_uring_prep_send_zc(::io_uring_get_sqe(&ring), fd.get(), "zc", 2, MSG_NOSIGNAL, 0);
    EXPECT_EQ(::io_uring_submit(&ring), 1);
    int result = 0;
    bool more = true;
    for (bool first = true; more; first = false) {
      io_uring_cqe* done = nullptr;
      EXPECT_EQ(::io_uring_wait_cqe(&ring, &done), 0);
      result = first ? done->res : result;
      more = (done->flags & IORING_CQE_F_MORE) != 0;  // the buffer is told of, too
      ::io_uring_cqe_seen(&ring, done);
    }
    return result;
  };
  Ends slow = open(false);
  Ends fast = open_fast();
  io_uring ring{};
  const UniqueFd netns(::ioctl(fast.client.get(), SIOCGSKNS));
  ST_ASSERT_OK(run_in_netns(netns.get(), [&]() -> Result<void> {
    const int failure = ::io_uring_queue_init(4, &ring, 0);
    return failure == 0 ? Result<void>() : errno_error("io_uring", -failure);
  }));
  ASSERT_TRUE(eventually(kPatience, [&] { return !adopted(fast.client); }));
  EXPECT_EQ(reason_of("shop/client"), "fp_io_uring");
  EXPECT_EQ(send_zc(ring, slow.client), 2);
  EXPECT_EQ(send_zc(ring, fast.client), -EOPNOTSUPP);
  // As applications do: the ring first.
  Ends late = open(true);
  use(late);
  EXPECT_EQ(send_zc(ring, late.client), 2);
  EXPECT_EQ(receive_text(late.server, 9), "'zc'");
  ::io_uring_queue_exit(&ring);
}
#endif

// In the pod here; wherever on the packets' way a filter is, the bytes do not come by.
TEST_F(FastDeviations, d35_packet_filters_and_user_timeouts_do_not_see_the_bytes) {
  const auto filtered = [](Ends& ends, const Pod& server) {
    const std::string rule = fmt::format(" INPUT -p tcp --sport {} -j DROP", port_of(ends.client));
    filter(server, "-A" + rule);
    set_option(ends.client, IPPROTO_TCP, TCP_USER_TIMEOUT, 300);
    const std::uint64_t by_tcp = sent_by_tcp(ends.client);
    EXPECT_EQ(send_text(ends.client, "x"), "sent");
    const bool skipped = sent_by_tcp(ends.client) == by_tcp;
    std::string said = receive_text(ends.server, 1, 0, kNothingComes);
    said += " " + receive_text(ends.client, 1, 0, skipped ? milliseconds(1000) : kPatience);
    filter(server, "-D" + rule);
    return said + (skipped ? "" : ", by TCP");
  };
  Ends slow = open(false);
  const std::string by_tcp = "EAGAIN ETIMEDOUT, by TCP";
  EXPECT_EQ(filtered(slow, *plain_.server), by_tcp);
  std::string last;
  EXPECT_TRUE(eventually(kPatience, [&] {
    Ends fast = open_fast();
    return (last = filtered(fast, *shop_.server)) != by_tcp;
  }));
  EXPECT_EQ(last, "'x' EAGAIN");
}

}  // namespace
}  // namespace sidetrack::lab
