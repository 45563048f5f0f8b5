// SPDX-License-Identifier: Apache-2.0
// What an application sets or does after the first bytes of its connection.
#include <fmt/format.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "tests/dataplane/fast_cases.h"
#include "tests/dataplane/fast_scenarios.h"

namespace sidetrack::lab {
namespace {

// What recvmsg() says beside the bytes.
std::string beside(const UniqueFd& fd) {
  pollfd wanted{fd.get(), POLLIN, 0};
  (void)::poll(&wanted, 1, static_cast<int>(kPatience.count()));
  std::array<char, 16> bytes{};
  std::array<char, 256> control{};
  iovec part{bytes.data(), 3};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(fd.get(), &message, 0);
  std::string said = std::to_string(got);
  for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
    said += fmt::format(" {}/{}", one->cmsg_level, one->cmsg_type);
  }
  return said;
}

// Time stamps begin a moment after they were asked for.
auto asks_late(int level, int option) {
  return [=](Ends& ends) {
    set_option(ends.server, level, option, 1);
    std::string said;
    EXPECT_TRUE(eventually(scaled(milliseconds(1000)), [&] {
      EXPECT_EQ(send_text(ends.client, "012"), "sent");
      said = beside(ends.server);
      return said != "3";
    }));
    return said;
  };
}

// The numbers of the send() calls whose memory is free again, until `last` is among them.
std::string completions(const UniqueFd& fd, std::uint32_t last) {
  std::string said;
  for (const auto deadline = Clock::now() + scaled(milliseconds(2000)); Clock::now() < deadline;) {
    pollfd wanted{fd.get(), 0, 0};
    (void)::poll(&wanted, 1, 10);
    std::array<char, 256> control{};
    msghdr message{};
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    if (::recvmsg(fd.get(), &message, MSG_ERRQUEUE) < 0) {
      continue;
    }
    sock_extended_err error{};
    std::memcpy(&error, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(error));
    said = fmt::format("origin {} {}", error.ee_origin,
                       error.ee_data <= last ? "by call" : "by other pieces");
    if (error.ee_data >= last) {
      break;
    }
  }
  return said;
}

// Takes what is sent, all or in part. (The error queue wakes poll(), too.)
std::string zerocopy_set_late(Ends& ends) {
  set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);
  const std::string bytes(50'000, 'z');
  std::vector<char> in(65536);
  for (int i = 0; i < 3; ++i) {
    const ssize_t sent =
        ::send(ends.client.get(), bytes.data(), bytes.size(), MSG_ZEROCOPY | MSG_NOSIGNAL);
    ssize_t got = 0;
    EXPECT_GT(sent, 0);
    EXPECT_TRUE(eventually(kPatience, [&] {
      const ssize_t count = ::recv(ends.server.get(), in.data(), in.size(), 0);
      got += std::max<ssize_t>(count, 0);
      return got >= sent;
    }));
  }
  return completions(ends.client, 2);
}

}  // namespace

std::vector<FastList::Case> late_calls() {
  return {
      {"SO_RCVLOWAT set late", scenarios::set_rcvlowat_late, "0", {}, 1, "fp_rcvlowat"},
      {"SO_PEEK_OFF set late", scenarios::set_peek_off_late, "'abc''def'", {}, 1, "fp_peek_off"},
      {"TCP_INQ set late", asks_late(IPPROTO_TCP, TCP_INQ), "3 6/36", {}, 1, "fp_tcp_inq"},
      {"SO_TIMESTAMP set late",
       asks_late(SOL_SOCKET, SO_TIMESTAMP),
       "3 1/29",
       {},
       1,
       "fp_timestamping"},
      {"SO_ZEROCOPY set late", zerocopy_set_late, "origin 5 by call", "origin 5 by other pieces", 1,
       "fp_zerocopy"},
      {"a reader that page-faults", scenarios::read_into_faulting_memory,
       "sent free senthelloworld"},
  };
}

FastList::Case asks_with_fionread() {
  return {"FIONREAD", scenarios::ask_how_much_waits, "sent'12345'sent'678'"};
}

FastList::Case mirrored(FastList::Case one) {
  one.run = [run = one.run](Ends& ends) {
    std::swap(ends.client, ends.server);
    std::string said = run(ends);
    std::swap(ends.client, ends.server);
    return said;
  };
  return one;
}

}  // namespace sidetrack::lab
