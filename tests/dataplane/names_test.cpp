// SPDX-License-Identifier: Apache-2.0
// What a redirected socket says of itself: as one of plain TCP would, at every stage of its life.
#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {
namespace {

// Both names of a socket, with the pod's addresses and an ephemeral port made the same for all
// pods.
struct Names {
  std::string peer;
  std::string own;
  bool operator==(const Names&) const = default;
};

void PrintTo(const Names& names, std::ostream* out) {
  *out << "peer " << names.peer << ", own " << names.own;
}

std::string neutral(std::string text, const Pod& pod) {
  for (const auto& [from, to] : {std::pair{pod.v4, "POD4"}, {pod.v6, "POD6"}}) {
    if (const std::size_t at = text.find(from); at != std::string::npos) {
      text.replace(at, from.size(), to);
    }
  }
  return text;
}

class NamesTest : public Mesh {
 protected:
  static Names names(PodShell& shell, const Pod& pod, int id) {
    const auto show = [&](const Result<Endpoint>& name, bool own) {
      if (!name || name->error_number != 0) {
        return fmt::format("error {}", name ? name->error_number : -1);
      }
      const bool ephemeral = own && name->port >= 32768;
      return neutral(
          fmt::format("{} {}", name->address, ephemeral ? "port" : std::to_string(name->port)),
          pod);
    };
    return {show(shell.peer_name(id), false), show(shell.socket_name(id), true)};
  }

  // Does the same in the redirected pod and in the one of plain TCP and compares the names at the
  // end. `prepare` gives the socket.
  template <typename Prepare>
  Names same_in_both(Prepare prepare) {
    const Names expected = names(*control_, *plain_, prepare(*control_, *plain_));
    const Names seen = names(*shell_, *web_, prepare(*shell_, *web_));
    EXPECT_EQ(seen, expected);
    return expected;
  }

  int connected(PodShell& shell, const std::string& address, std::uint16_t port,
                const ConnectOptions& options = {}) {
    const auto socket = shell.connect(address, port, options);
    EXPECT_TRUE(socket && socket->error_number == 0);
    if (!socket) {
      return 0;
    }
    const auto role = remembered(shell, socket->id);
    EXPECT_TRUE(role && role->empty() == (&shell != shell_.get()));
    return socket->id;
  }
};

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

// Second connects of sockets that were redirected once and now go another way.
class PastTheEngine : public NamesTest {
 protected:
  struct Way {
    const char* reason;
    std::string v4;  // where to
    std::string v6;
    std::uint16_t port = kEcho;
    const char* role = "none";
  };

  void SetUp() override {
    NamesTest::SetUp();
    if (HasFatalFailure() || IsSkipped()) {
      return;
    }
    ST_ASSERT_VALUE(spare_echo_, EchoServer::start(place(*spare_), {"echo:7000"}));
    ST_ASSERT_VALUE(web_echo_, EchoServer::start(place(*web_), {"echo:7000"}));
    annotate(kExcludePorts, std::to_string(kEchoToo));
    annotate(kExcludeCidrs, spare_->v4 + "," + spare_->v6);
    annotate(kIncludePorts, std::to_string(kEcho));
  }

  int disconnected(const std::string& address) {
    const int id = connected(*shell_, address, kEcho);
    EXPECT_TRUE(shell_->send(id, "ping").has_value());
    EXPECT_EQ(shell_->receive(id, 4)->text, "ping") << "the engine has made its connection";
    EXPECT_EQ(shell_->disconnect(id)->error_number, 0);
    return id;
  }

  void goes_past(int id, const Way& way, const std::string& to, const std::string& own) {
    SCOPED_TRACE(std::string(way.reason) + " " + to);
    const Counts before = counts();
    ST_ASSERT_VALUE(auto again, shell_->connect_again(id, to, way.port));
    EXPECT_EQ(again.errno_name, "");
    EXPECT_EQ(counts(), plus_one(before, way.reason));
    ST_ASSERT_VALUE(const auto role, remembered(*shell_, id));
    EXPECT_EQ(role.empty() ? "none" : role, way.role);
    EXPECT_EQ(names(*shell_, *web_, id), (Names{fmt::format("{} {}", to, way.port), own}));
    ST_ASSERT_VALUE(auto original, shell_->original_destination(id));
    EXPECT_NE(original.error_number, 0);
    ST_ASSERT_VALUE(auto done, shell_->exchange(id, 1000));
    EXPECT_EQ(done.digest, done.expected_digest);
    ST_ASSERT_OK(shell_->close(id));
  }

  // One socket of each family; `change` comes between its two connects and is given it.
  template <typename Change>
  void both_go_past(const Way& way, Change change) {
    const int v4 = disconnected(api_->v4);
    const int v6 = disconnected(api_->v6);
    ASSERT_NO_FATAL_FAILURE(change(v4));
    ASSERT_NO_FATAL_FAILURE(change(v6));
    goes_past(v4, way, way.v4, way.v4 == "127.0.0.1" ? "127.0.0.1 port" : "POD4 port");
    goes_past(v6, way, way.v6, way.v6 == "::1" ? "::1 port" : "POD6 port");
  }
  void both_go_past(const Way& way) {
    both_go_past(way, [](int) {});
  }

  void bypass(const char* value) {
    ST_ASSERT_VALUE(auto said,
                    sidetrack_->ctl({"bypass", "--pin-dir", sidetrack_->pin_dir(), value}));
    EXPECT_EQ(said.exit_status, 0) << said.output;
  }

  std::unique_ptr<EchoServer> web_echo_;
};

TEST_F(PastTheEngine, every_way_forgets_what_was_asked_for_before) {
  both_go_past({"excluded_port", api_->v4, api_->v6, kEchoToo});
  both_go_past({"excluded_cidr", spare_->v4, spare_->v6});
  both_go_past({"not_included", api_->v4, api_->v6, kHttps});
  both_go_past({"local_destination", "127.0.0.1", "::1"});
  both_go_past({"bound_device", api_->v4, api_->v6}, [&](int id) {
    ST_ASSERT_VALUE(const UniqueFd socket, take(*shell_, id));
    EXPECT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_BINDTODEVICE, "eth0", 4), 0);
  });
  both_go_past({"bypass", api_->v4, api_->v6}, [&](int) { bypass("on"); });
  bypass("off");
  both_go_past({"not_enrolled", api_->v4, api_->v6}, [&](int) {
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", kMode, "disabled"));
    ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "skipped", "disabled"));
  });
  label(kMode, "redirect");
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "redirect"));
  both_go_past({"engine_down", api_->v4, api_->v6, kEcho, "observed"},
               [&](int) { sidetrack_->engine().kill_hard(); });
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
