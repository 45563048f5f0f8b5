// SPDX-License-Identifier: Apache-2.0
// What a redirected socket says of itself: as one of plain TCP would, at every stage of its life.
#include "tests/dataplane/names.h"

#include <fmt/format.h>

#include <cerrno>

namespace sidetrack::lab {
namespace {

TEST_F(NamesTest, ipv4_socket_shows_what_was_asked_for_and_the_pod) {
  const Names seen =
      same_in_both([&](PodShell& shell, const Pod&) { return connected(shell, api_->v4, kEcho); });
  EXPECT_EQ(seen, (Names{fmt::format("{} {}", api_->v4, kEcho), "POD4 port"}));
}

TEST_F(NamesTest, ipv6_socket_shows_what_was_asked_for_and_the_pod) {
  const Names seen =
      same_in_both([&](PodShell& shell, const Pod&) { return connected(shell, api_->v6, kEcho); });
  EXPECT_EQ(seen, (Names{fmt::format("{} {}", api_->v6, kEcho), "POD6 port"}));
}

TEST_F(NamesTest, mapped_socket_shows_mapped_addresses) {
  const Names seen = same_in_both([&](PodShell& shell, const Pod&) {
    return connected(shell, api_->v4, kEcho, {.family = Family::kV6});
  });
  EXPECT_EQ(seen, (Names{fmt::format("::ffff:{} {}", api_->v4, kEcho), "::ffff:POD4 port"}));
}

TEST_F(NamesTest, service_address_stays_what_was_asked_for) {
  const int v4 = connected(*shell_, kServiceV4, kServicePort);
  EXPECT_EQ(names(*shell_, *web_, v4), (Names{fmt::format("{} 80", kServiceV4), "POD4 port"}));
  const int v6 = connected(*shell_, kServiceV6, kServicePort);
  EXPECT_EQ(names(*shell_, *web_, v6), (Names{fmt::format("{} 80", kServiceV6), "POD6 port"}));
}

TEST_F(NamesTest, local_port_is_the_real_one) {
  const int id = connected(*shell_, api_->v4, kEcho);
  ST_ASSERT_VALUE(auto own, shell_->socket_name(id));
  ST_ASSERT_VALUE(auto list, run_command({.arguments = {"ss", "-Htn", "state", "established",
                                                        fmt::format("sport = :{}", own.port)},
                                          .netns_path = web_->netns.path()}));
  EXPECT_NE(list.standard_output.find(fmt::format("127.0.0.1:{} ", own.port)), std::string::npos)
      << list.output;
  EXPECT_NE(list.standard_output.find("127.0.0.1:159"), std::string::npos) << list.output;
}

TEST_F(NamesTest, names_stay_while_bytes_flow_and_after_half_close) {
  same_in_both([&](PodShell& shell, const Pod&) {
    const int id = connected(shell, api_->v4, kEcho);
    EXPECT_TRUE(shell.send(id, "ping").has_value());
    EXPECT_EQ(shell.receive(id, 4)->text, "ping");
    EXPECT_TRUE(shell.shutdown(id).has_value());
    EXPECT_EQ(shell.receive_to_end(id)->error_number, 0);
    return id;
  });
}

TEST_F(NamesTest, socket_bound_to_the_pods_address_and_port) {
  const Names seen = same_in_both([&](PodShell& shell, const Pod& pod) {
    return connected(shell, api_->v4, kEcho, {.bind = pod.v4 + "/4321"});
  });
  EXPECT_EQ(seen.own, "POD4 4321");
  const Names seen6 = same_in_both([&](PodShell& shell, const Pod& pod) {
    return connected(shell, api_->v6, kEcho, {.bind = pod.v6 + "/4322"});
  });
  EXPECT_EQ(seen6.own, "POD6 4322");
}

TEST_F(NamesTest, socket_bound_to_any_address) {
  const Names seen = same_in_both([&](PodShell& shell, const Pod&) {
    return connected(shell, api_->v4, kEcho, {.bind = "0.0.0.0/4323"});
  });
  EXPECT_EQ(seen.own, "POD4 4323");
}

TEST_F(NamesTest, unconnected_socket) {
  for (const char* family : {"v4", "v6"}) {
    SCOPED_TRACE(family);
    const Names seen = same_in_both([&](PodShell& shell, const Pod&) {
      const auto socket = shell.command(fmt::format("socket {}", family));
      return socket ? socket->value("id", 0) : 0;
    });
    EXPECT_EQ(seen.peer, fmt::format("error {}", ENOTCONN));
  }
}

TEST_F(NamesTest, after_a_failed_connect) {
  annotate(kExcludePorts, std::to_string(kClosed));
  const Names seen = same_in_both([&](PodShell& shell, const Pod&) {
    const auto socket = shell.connect(api_->v4, kClosed);
    EXPECT_TRUE(socket && socket->error_number == ECONNREFUSED);
    return socket ? socket->id : 0;
  });
  EXPECT_EQ(seen.peer, fmt::format("error {}", ENOTCONN));
}

TEST_F(NamesTest, after_a_disconnect) {
  for (const std::string& address : {api_->v4, api_->v6}) {
    SCOPED_TRACE(address);
    const Names seen = same_in_both([&](PodShell& shell, const Pod&) {
      const int id = connected(shell, address, kEcho);
      EXPECT_EQ(shell.disconnect(id)->error_number, 0);
      return id;
    });
    EXPECT_EQ(seen.peer, fmt::format("error {}", ENOTCONN));
  }
}

TEST_F(NamesTest, after_a_disconnect_of_a_bound_socket) {
  same_in_both([&](PodShell& shell, const Pod& pod) {
    const int id = connected(shell, api_->v4, kEcho, {.bind = pod.v4 + "/4324"});
    EXPECT_EQ(shell.disconnect(id)->error_number, 0);
    return id;
  });
}

TEST_F(NamesTest, after_a_reset) {
  for (const std::string& address : {api_->v4, api_->v6}) {
    SCOPED_TRACE(address);
    const Names seen = same_in_both([&](PodShell& shell, const Pod&) {
      const int id = connected(shell, address, kReset);
      EXPECT_TRUE(shell.send(id, "x").has_value());
      EXPECT_EQ(shell.receive_to_end(id)->error_number, ECONNRESET);
      return id;
    });
    EXPECT_EQ(seen.peer, fmt::format("error {}", ENOTCONN));
  }
}

TEST_F(NamesTest, accepted_sockets_of_the_pod_are_untouched) {
  ST_ASSERT_VALUE(auto listening, shell_->listen("::", 8080));
  ST_ASSERT_VALUE(auto client, control_->connect(web_->v4, 8080));
  ASSERT_EQ(client.error_number, 0);
  ST_ASSERT_VALUE(auto accepted, shell_->accept(listening.id));
  ST_ASSERT_VALUE(auto peer, shell_->peer_name(accepted.id));
  ST_ASSERT_VALUE(auto own, shell_->socket_name(accepted.id));
  EXPECT_EQ(peer.address, "::ffff:" + plain_->v4);
  EXPECT_EQ(own.address, "::ffff:" + web_->v4);
  EXPECT_EQ(own.port, 8080);
}

}  // namespace
}  // namespace sidetrack::lab
