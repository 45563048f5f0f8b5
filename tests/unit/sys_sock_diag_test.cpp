// SPDX-License-Identifier: Apache-2.0
// What the kernel answers to sock_diag, message by message.
#include <gtest/gtest.h>
#include <linux/netlink.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "agent/sys/sock_diag.h"

namespace sidetrack::sys {
namespace {

template <typename Payload>
std::string message(std::uint16_t type, const Payload& payload) {
  const nlmsghdr header{.nlmsg_len = NLMSG_LENGTH(sizeof(payload)), .nlmsg_type = type};
  std::string bytes(NLMSG_SPACE(sizeof(payload)), '\0');
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + NLMSG_HDRLEN, &payload, sizeof(payload));
  return bytes;
}

std::string socket_on(std::uint16_t port_be) {
  inet_diag_msg payload{};
  payload.id.idiag_sport = port_be;
  return message(NLMSG_MIN_TYPE + 4, payload);
}

TEST(SockDiagAnswer, is_read_to_its_end) {
  std::vector<TcpSocket> sockets;
  auto all = read_answer(socket_on(1) + socket_on(2), sockets);
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_FALSE(*all);
  all = read_answer(socket_on(3) + message(NLMSG_DONE, 0), sockets);
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_TRUE(*all);
  ASSERT_EQ(sockets.size(), 3U);
  EXPECT_EQ(sockets[2].id.idiag_sport, 3);
}

TEST(SockDiagAnswer, that_was_cut_short_is_an_error) {
  std::vector<TcpSocket> sockets;
  const auto cut = read_answer(socket_on(1) + message(NLMSG_DONE, -ENOMEM), sockets);
  ASSERT_FALSE(cut) << "the list is not whole";
  EXPECT_EQ(cut.error().error_number, ENOMEM);
}

TEST(SockDiagAnswer, to_a_request_that_fails_is_an_error) {
  std::vector<TcpSocket> sockets;
  const auto refused = read_answer(message(NLMSG_ERROR, nlmsgerr{.error = -ENOENT}), sockets);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().error_number, ENOENT);
  const auto done = read_answer(message(NLMSG_ERROR, nlmsgerr{.error = 0}), sockets);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(*done);
  const auto torn = read_answer(message(NLMSG_ERROR, char{0}), sockets);
  ASSERT_FALSE(torn);
  EXPECT_EQ(torn.error().error_number, EBADMSG);
}

}  // namespace
}  // namespace sidetrack::sys
