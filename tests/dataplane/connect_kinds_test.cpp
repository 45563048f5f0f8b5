// SPDX-License-Identifier: Apache-2.0
// The ways in which applications connect: each behaves as without Sidetrack. The control is the
// same call in a pod that is not enrolled.
#include <fmt/format.h>

#include <cerrno>
#include <filesystem>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

class ConnectKindsTest : public Mesh {
 protected:
  // Connects in both pods with `options_of(pod)`, expects the same errnos, and bytes that come
  // back. Returns the socket of the enrolled pod.
  template <typename OptionsOf>
  SocketState same_in_both(const std::string& address, std::uint16_t port, OptionsOf options_of) {
    const auto control = control_->connect(address, port, options_of(*plain_));
    const auto socket = shell_->connect(address, port, options_of(*web_));
    if (!control || !socket) {
      ADD_FAILURE() << (control ? socket : control).error().message;
      return {};
    }
    EXPECT_EQ(socket->first_errno, control->first_errno);
    EXPECT_EQ(socket->errno_name, control->errno_name);
    return *socket;
  }

  void echoes(int id, const std::string& early = "") const {
    if (!early.empty()) {
      ST_ASSERT_VALUE(auto back, shell_->receive(id, early.size()));
      EXPECT_EQ(back.text, early);
    }
    ST_ASSERT_VALUE(auto done, shell_->exchange(id, 50'000));
    EXPECT_EQ(done.error_number, 0);
    EXPECT_EQ(done.digest, done.expected_digest);
  }

  void is_redirected(int id, bool expected = true) const {
    ST_ASSERT_VALUE(const auto role, remembered(*shell_, id));
    EXPECT_EQ(role == "redirected", expected);
  }

  void asks_for(int id, const std::string& address, std::uint16_t port) const {
    ST_ASSERT_VALUE(auto peer, shell_->peer_name(id));
    EXPECT_EQ(peer.address, address);
    EXPECT_EQ(peer.port, port);
  }

  // Left direct with `reason`, counted once, works, leaves no row.
  void goes_direct(const std::string& address, const ConnectOptions& options,
                   const std::string& reason) {
    SCOPED_TRACE(address);
    const Counts before = counts();
    const SocketState socket = same_in_both(address, kEcho, [&](const Pod&) { return options; });
    EXPECT_EQ(socket.errno_name, "");
    asks_for(socket.id, address, kEcho);
    ST_ASSERT_VALUE(auto own, shell_->socket_name(socket.id));
    EXPECT_EQ(own.address, address == api_->v4 ? web_->v4 : web_->v6);
    echoes(socket.id);
    EXPECT_EQ(counts(), plus_one(before, reason));
    if (options.protocol == Protocol::kTcp) {
      ST_ASSERT_VALUE(const auto role, remembered(*shell_, socket.id));
      EXPECT_EQ(role, "");
    }
  }
};

TEST_F(ConnectKindsTest, bound_to_a_device_is_left_direct) {
  goes_direct(api_->v4, {.device = "eth0"}, "bound_device");
  goes_direct(api_->v6, {.device = "eth0"}, "bound_device");
}

TEST_F(ConnectKindsTest, transparent_is_left_direct) {
  goes_direct(api_->v4, {.more = "transparent"}, "transparent");
  goes_direct(api_->v6, {.more = "transparent"}, "transparent");
}

// Any pod may set one that an engine or a mesh's proxy uses: it says nothing of who connects.
TEST_F(ConnectKindsTest, marked_socket_is_redirected) {
  for (const std::string& address : {api_->v4, api_->v6}) {
    for (const char* mark : {"mark=1", "mark=1337", "mark=2147483647"}) {
      SCOPED_TRACE(address + " " + mark);
      const std::uint64_t before = counts()["redirected"];
      const SocketState socket =
          same_in_both(address, kEcho, [&](const Pod&) { return ConnectOptions{.more = mark}; });
      EXPECT_EQ(socket.errno_name, "");
      is_redirected(socket.id);
      asks_for(socket.id, address, kEcho);
      echoes(socket.id);
      EXPECT_EQ(counts()["redirected"], before + 1);
    }
  }
}

TEST_F(ConnectKindsTest, mptcp_is_left_direct) {
  goes_direct(api_->v4, {.protocol = Protocol::kMptcp}, "mptcp");
  goes_direct(api_->v6, {.protocol = Protocol::kMptcp}, "mptcp");
}

TEST_F(ConnectKindsTest, mptcp_server_is_reached_through_the_engine) {
  ST_ASSERT_VALUE(auto server, PodShell::start(place(*spare_)));
  ST_ASSERT_VALUE(auto listening, server->command("listen v6 :: 8080 mptcp"));
  for (const auto& [address, client] :
       {std::pair{spare_->v4, "::ffff:" + web_->v4}, {spare_->v6, web_->v6}}) {
    SCOPED_TRACE(address);
    ST_ASSERT_VALUE(auto socket, shell_->connect(address, 8080));
    is_redirected(socket.id);
    ST_ASSERT_OK(shell_->send(socket.id, "ping"));
    ST_ASSERT_VALUE(auto accepted, server->accept(listening["id"]));
    EXPECT_EQ(accepted.address, client);
    ST_ASSERT_VALUE(auto ping, server->receive(accepted.id, 4));
    EXPECT_EQ(ping.text, "ping");
    ST_ASSERT_OK(server->send(accepted.id, "pong"));
    ST_ASSERT_VALUE(auto pong, shell_->receive(socket.id, 4));
    EXPECT_EQ(pong.text, "pong");
  }
}

TEST_F(ConnectKindsTest, bound_to_the_pods_address) {
  for (const bool v4 : {true, false}) {
    const std::string address = v4 ? api_->v4 : api_->v6;
    SCOPED_TRACE(address);
    const SocketState socket = same_in_both(address, kEcho, [&](const Pod& pod) {
      return ConnectOptions{.bind = v4 ? pod.v4 : pod.v6};
    });
    EXPECT_EQ(socket.errno_name, "");
    is_redirected(socket.id);
    echoes(socket.id);
  }
}

TEST_F(ConnectKindsTest, bound_to_the_pods_address_and_a_port) {
  const SocketState socket = same_in_both(
      api_->v4, kEcho, [&](const Pod& pod) { return ConnectOptions{.bind = pod.v4 + "/4321"}; });
  EXPECT_EQ(socket.errno_name, "");
  is_redirected(socket.id);
  ST_ASSERT_VALUE(auto own, shell_->socket_name(socket.id));
  EXPECT_EQ(own.address, web_->v4);
  EXPECT_EQ(own.port, 4321);
  echoes(socket.id);
}

// Two sockets on one port are fine towards two destinations; at one listener they would be the same
// connection.
TEST_F(ConnectKindsTest, two_on_one_shared_port_are_left_direct) {
  const Counts before = counts();
  const auto options = [](const Pod& pod) {
    return ConnectOptions{.bind = pod.v4 + "/4322", .more = "reuse"};
  };
  const SocketState first = same_in_both(api_->v4, kEcho, options);
  const SocketState second = same_in_both(api_->v4, kEchoToo, options);
  for (const SocketState& socket : {first, second}) {
    EXPECT_EQ(socket.errno_name, "");
    is_redirected(socket.id, false);
    echoes(socket.id);
  }
  EXPECT_EQ(counts(), plus_one(plus_one(before, "bound_port"), "bound_port"));
}

TEST_F(ConnectKindsTest, bound_to_loopback_fails_as_without) {
  for (const auto& [address, loopback] : {std::pair{api_->v4, "127.0.0.1"}, {api_->v6, "::1"}}) {
    SCOPED_TRACE(address);
    const Counts before = counts();
    const SocketState socket = same_in_both(address, kEcho, [&](const Pod&) {
      return ConnectOptions{.bind = loopback, .timeout = milliseconds(1500)};
    });
    EXPECT_NE(socket.errno_name, "");
    is_redirected(socket.id, false);
    EXPECT_EQ(counts(), plus_one(before, "local_destination"));
  }
}

TEST_F(ConnectKindsTest, reconnected_to_an_excluded_destination_keeps_nothing) {
  annotate(kExcludePorts, std::to_string(kEchoToo));
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kEcho));
  is_redirected(socket.id);
  ST_ASSERT_OK(shell_->disconnect(socket.id));
  const Counts before = counts();
  ST_ASSERT_VALUE(auto again, shell_->connect_again(socket.id, api_->v4, kEchoToo));
  EXPECT_EQ(again.errno_name, "");
  EXPECT_EQ(counts(), plus_one(before, "excluded_port"));
  ST_ASSERT_VALUE(const auto role, remembered(*shell_, socket.id));
  EXPECT_EQ(role, "");
  asks_for(socket.id, api_->v4, kEchoToo);
  ST_ASSERT_VALUE(auto own, shell_->socket_name(socket.id));
  EXPECT_EQ(own.address, web_->v4);
  ST_ASSERT_VALUE(auto original, shell_->original_destination(socket.id));
  EXPECT_NE(original.error_number, 0);
  echoes(socket.id);
}

TEST_F(ConnectKindsTest, reconnected_from_excluded_to_redirected) {
  annotate(kExcludePorts, std::to_string(kEchoToo));
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kEchoToo));
  is_redirected(socket.id, false);
  ST_ASSERT_OK(shell_->disconnect(socket.id));
  ST_ASSERT_VALUE(auto again, shell_->connect_again(socket.id, api_->v4, kEcho));
  EXPECT_EQ(again.errno_name, "");
  is_redirected(socket.id);
  asks_for(socket.id, api_->v4, kEcho);
  echoes(socket.id);
}

TEST_F(ConnectKindsTest, reconnected_from_redirected_to_redirected) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kGreeting));
  const std::string first = source_of(*shell_, socket.id);
  ST_ASSERT_VALUE(auto hello, shell_->receive(socket.id, 7));
  EXPECT_EQ(hello.text, "hello\r\n");
  ST_ASSERT_OK(shell_->disconnect(socket.id));
  ST_ASSERT_VALUE(auto again, shell_->connect_again(socket.id, api_->v4, kEcho));
  EXPECT_EQ(again.errno_name, "");
  asks_for(socket.id, api_->v4, kEcho);
  const std::string second = source_of(*shell_, socket.id);
  echoes(socket.id);
  ST_ASSERT_OK(shell_->close(socket.id));
  EXPECT_EQ(closed_flow(first)["destination"], endpoint_text(api_->v4, kGreeting));
  EXPECT_EQ(closed_flow(second)["destination"], endpoint_text(api_->v4, kEcho));
}

TEST_F(ConnectKindsTest, non_blocking) {
  for (const std::string& address : {api_->v4, api_->v6}) {
    const SocketState socket = same_in_both(
        address, kEcho, [](const Pod&) { return ConnectOptions{.blocking = Blocking::kNo}; });
    EXPECT_EQ(socket.first_errno, EINPROGRESS);
    is_redirected(socket.id);
    echoes(socket.id);
  }
}

TEST_F(ConnectKindsTest, second_connect_says_is_connected) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kEcho));
  for (const std::uint16_t port : {kEcho, kEchoToo}) {
    ST_ASSERT_VALUE(auto second, shell_->connect_again(socket.id, api_->v4, port));
    EXPECT_EQ(second.errno_name, "EISCONN");
  }
  asks_for(socket.id, api_->v4, kEcho);
  is_redirected(socket.id);
  echoes(socket.id);
}

TEST_F(ConnectKindsTest, fast_open_connect) {
  for (const std::string& address : {api_->v4, api_->v6}) {
    SCOPED_TRACE(address);
    for (int i = 0; i < 2; ++i) {  // the second time with a cookie, if the peer gives any
      const SocketState socket = same_in_both(address, kEcho, [](const Pod&) {
        return ConnectOptions{.fast_open = FastOpen::kConnect};
      });
      EXPECT_EQ(socket.errno_name, "");
      is_redirected(socket.id);
      asks_for(socket.id, address, kEcho);
      echoes(socket.id);
    }
  }
}

TEST_F(ConnectKindsTest, fast_open_sendto) {
  for (const std::string& address : {api_->v4, api_->v6}) {
    const SocketState socket = same_in_both(address, kEcho, [](const Pod&) {
      return ConnectOptions{.fast_open = FastOpen::kSendto, .fast_open_data = "early"};
    });
    EXPECT_EQ(socket.errno_name, "");
    is_redirected(socket.id);
    asks_for(socket.id, address, kEcho);
    const std::string source = source_of(*shell_, socket.id);
    echoes(socket.id, "early");
    ST_ASSERT_OK(shell_->close(socket.id));
    const json flow = closed_flow(source);
    EXPECT_EQ(flow["bytes_out"], 50'005) << flow;
    EXPECT_EQ(flow["bytes_in"], 50'005) << flow;
  }
}

TEST_F(ConnectKindsTest, io_uring) {
  for (const std::string& address : {api_->v4, api_->v6}) {
    const SocketState socket =
        same_in_both(address, kEcho, [](const Pod&) { return ConnectOptions{.more = "uring"}; });
    EXPECT_EQ(socket.errno_name, "");
    is_redirected(socket.id);
    asks_for(socket.id, address, kEcho);
    echoes(socket.id);
  }
  annotate(kExcludePorts, std::to_string(kClosed));
  const SocketState refused =
      same_in_both(api_->v4, kClosed, [](const Pod&) { return ConnectOptions{.more = "uring"}; });
  EXPECT_EQ(refused.errno_name, "ECONNREFUSED");
}

TEST_F(ConnectKindsTest, client_sees_no_original_destination) {
  ST_ASSERT_VALUE(auto plain, control_->connect(api_->v4, kEcho));
  ST_ASSERT_VALUE(auto socket, shell_->connect(api_->v4, kEcho));
  ST_ASSERT_VALUE(auto expected, control_->original_destination(plain.id));
  ST_ASSERT_VALUE(auto seen, shell_->original_destination(socket.id));
  EXPECT_EQ(seen.error_number, expected.error_number);
  EXPECT_NE(seen.error_number, 0);
}

// A socket whose option memory is used up: no capability is needed for these keys.
class NoStorageTest : public ConnectKindsTest {
 protected:
  int full_socket() {
    const auto socket = shell_->command("socket v4");
    const int id = socket ? socket->value("id", 0) : 0;
    const auto keys = shell_->command(fmt::format("md5_keys {} count=5000", id));
    EXPECT_TRUE(keys && (*keys)["errno_name"] == "ENOMEM")
        << (keys ? keys->dump() : keys.error().message);
    return id;
  }
  [[nodiscard]] std::uint64_t storage_full() const {
    const auto answer = sidetrack_->get("/v1/counters");
    for (const json& row : answer ? (*answer)["counters"] : json::array()) {
      if (row["namespace"] == "shop") {
        return row["storage_full"];
      }
    }
    return 0;
  }
};

TEST_F(NoStorageTest, open_goes_direct) {
  ST_ASSERT_OK(shell_->connect(api_->v4, kEcho));  // the namespace's row of counters is there
  const int id = full_socket();
  const Counts before = counts();
  ST_ASSERT_VALUE(auto socket, shell_->connect_again(id, api_->v4, kEcho));
  EXPECT_EQ(socket.errno_name, "");
  EXPECT_EQ(counts(), plus_one(before, "internal_error"));
  EXPECT_EQ(storage_full(), 1U);
  asks_for(id, api_->v4, kEcho);
  echoes(id);
}

TEST_F(NoStorageTest, closed_refuses) {
  label(kOnEngineLoss, "closed");
  const int id = full_socket();
  const Counts before = counts();
  ST_ASSERT_VALUE(auto socket, shell_->connect_again(id, api_->v4, kEcho));
  EXPECT_EQ(socket.errno_name, "ECONNREFUSED");
  EXPECT_EQ(counts(), plus_one(before, "engine_down_closed"));
  EXPECT_EQ(storage_full(), 1U);
}

// Go's listeners speak MPTCP by default (since 1.24).
class ConnectKindsOfGo : public ConnectKindsTest {
 protected:
  void SetUp() override {
    if (std::string(ST_GO).empty()) {
      GTEST_SKIP() << "no Go compiler of at least 1.16 was there when this was configured";
    }
    ConnectKindsTest::SetUp();
  }
};

TEST_F(ConnectKindsOfGo, client_and_server) {
  ST_ASSERT_VALUE(const TempDir folder, TempDir::create("go"));
  ST_ASSERT_VALUE(auto built,
                  run_command({.arguments = {"env", "GO111MODULE=off", "GOFLAGS=", ST_GO, "build",
                                             "-o", folder.file("http_pair"), ST_GO_SOURCE},
                               .within = milliseconds(100'000)}));
  ASSERT_EQ(built.exit_status, 0) << built.output;
  ST_ASSERT_VALUE(auto server,
                  Process::start({.arguments = {folder.file("http_pair"), "serve", ":8080"},
                                  .netns_path = spare_->netns.path(),
                                  .cgroup_path = cgroup_->path()}));
  ST_ASSERT_OK(server->wait_for_output("listening"));
  const Counts before = counts();
  for (const std::string& address : {spare_->v4 + ":8080", "[" + spare_->v6 + "]:8080"}) {
    ST_ASSERT_VALUE(auto client, run_command({.arguments = {folder.file("http_pair"), "get",
                                                            "http://" + address + "/", "20"},
                                              .netns_path = web_->netns.path(),
                                              .cgroup_path = cgroup_->path()}));
    EXPECT_EQ(client.exit_status, 0) << client.output;
    EXPECT_EQ(client.standard_output, "20 answers, 20000000 bytes\n") << client.output;
  }
  const Counts after = counts();
  EXPECT_EQ(after.at("redirected"),
            (before.contains("redirected") ? before.at("redirected") : 0) + 2);
  EXPECT_FALSE(after.contains("mptcp"));
}

}  // namespace
}  // namespace sidetrack::lab
