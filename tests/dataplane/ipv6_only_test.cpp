// SPDX-License-Identifier: Apache-2.0
// Pods of a cluster of IPv6 alone: redirected, excluded and passed through over IPv6, and all that
// an application sees of a connection is as on plain TCP.
#include <fmt/format.h>

#include <cerrno>

#include "sidetrack/addr.h"
#include "tests/dataplane/names.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

// Of both pods. kBoth: as container runtimes leave it, 127.0.0.1 is all that there is of IPv4.
enum class Loopback { kBoth, kV6 };

class Ipv6OnlyTest : public NamesTest, public testing::WithParamInterface<Loopback> {
 protected:
  void start_sidetrack() override {
    for (const Pod* pod : {web_, plain_}) {
      ST_ASSERT_OK(pod->netns.ip(fmt::format("addr del {}/24 dev eth0", pod->v4)));
      if (GetParam() == Loopback::kV6) {
        ST_ASSERT_OK(pod->netns.ip("addr del 127.0.0.1/8 dev lo"));
      }
      ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = pod == web_ ? "shop" : "depot",
                                         .name = pod->name,
                                         .netns_path = pod->netns.path(),
                                         .addresses = {pod->v6}}));
    }
    NamesTest::start_sidetrack();
  }

  // A connection of web's, and what it said of itself before its first byte.
  struct Connection {
    int id = 0;
    std::string source;
    Names shown;
  };
  // A connection that has this role in the kernel, to `address`; all its bytes come back.
  Connection echoed(const std::string& address, std::uint16_t port, const std::string& role) {
    const auto socket = shell_->connect(address, port);
    if (!socket || socket->error_number != 0) {
      ADD_FAILURE() << (socket ? socket->errno_name : socket.error().message);
      return {};
    }
    EXPECT_EQ(remembered(*shell_, socket->id).value_or("error"), role);
    const Names shown = names(*shell_, *web_, socket->id);
    const auto done = shell_->exchange(socket->id, 100'000);
    EXPECT_TRUE(done && done->error_number == 0 && done->digest == done->expected_digest);
    return {socket->id, source_of(*shell_, socket->id), shown};
  }
  // Its flow record, once it is closed.
  json flow_of(const Connection& connection) {
    EXPECT_TRUE(shell_->close(connection.id));
    return closed_flow(connection.source);
  }

  // Who a server that tells it sees: "ADDRESS" of a connection by the engine; a direct one must
  // have the port of its own name, too.
  std::string seen_by_server(PodShell& shell, const Pod& pod, bool direct) {
    const auto socket = shell.connect(api_->v6, kWhoami);
    const auto own = shell.socket_name(socket ? socket->id : 0);
    const auto said = shell.receive(socket ? socket->id : 0, 100);
    if (!own || !said) {
      return "nothing";
    }
    if (direct) {
      EXPECT_EQ(said->text.substr(0, said->text.find('\n')),
                fmt::format("{} {}", own->address, own->port));
    }
    return neutral(said->text.substr(0, said->text.find(' ')), pod);
  }
  void same_for_server(bool direct) {
    EXPECT_EQ(seen_by_server(*control_, *plain_, true), "POD6");
    EXPECT_EQ(seen_by_server(*shell_, *web_, direct), "POD6");
  }

  // What a client is answered that asks for SO_ORIGINAL_DST.
  int original_destination_errno(PodShell& shell) {
    const auto socket = shell.connect(api_->v6, kEcho);
    const auto original = shell.original_destination(socket ? socket->id : 0);
    return original ? original->error_number : -1;
  }

  // Left alone: no row, one count of `reason`, no flow, and the names of plain TCP.
  void is_excluded(const std::string& reason) {
    SCOPED_TRACE(reason);
    EXPECT_EQ(explain(api_->v6, kEcho)["reason"], reason);
    const Counts before = counts();
    const Connection connection = echoed(api_->v6, kEcho, "");
    EXPECT_EQ(counts(), plus_one(before, reason));
    EXPECT_EQ(connection.shown, (Names{fmt::format("{} {}", api_->v6, kEcho), "POD6 port"}));
    EXPECT_TRUE(shell_->close(connection.id));
    EXPECT_TRUE(flows_from(connection.source).empty());
  }
};

TEST_P(Ipv6OnlyTest, pod_and_service_addresses_are_redirected) {
  ST_ASSERT_VALUE(const std::uint64_t netns, web_->netns.cookie());
  ST_ASSERT_VALUE(const st_pod row, kernel().pod(netns));
  EXPECT_EQ(row.listeners_v4 != 0, GetParam() == Loopback::kBoth);
  EXPECT_NE(row.listeners_v6, 0);
  EXPECT_TRUE(st_addr_is_zero(&row.own_v4)) << "127.0.0.1 is no name";
  for (const auto& [address, port] :
       {std::pair<std::string, std::uint16_t>{api_->v6, kEcho}, {kServiceV6, kServicePort}}) {
    SCOPED_TRACE(address);
    const Counts before = counts();
    const Connection connection = echoed(address, port, "redirected");
    EXPECT_EQ(connection.shown, (Names{fmt::format("{} {}", address, port), "POD6 port"}));
    EXPECT_EQ(counts(), plus_one(plus_one(before, "redirected"), "engine_socket"));
    const json flow = flow_of(connection);
    EXPECT_EQ(flow["destination"], endpoint_text(address, port));
    EXPECT_EQ(flow["endpoint"], endpoint_text(api_->v6, kEcho));
    EXPECT_EQ(flow["path"], "engine");
  }
  same_for_server(false);
  const int untold = original_destination_errno(*control_);
  EXPECT_GT(untold, 0);
  EXPECT_EQ(original_destination_errno(*shell_), untold) << "only engines are told";
}

TEST_P(Ipv6OnlyTest, redirected_socket_has_the_names_of_plain_tcp) {
  const std::string echo = fmt::format("{} {}", api_->v6, kEcho);
  const std::string none = fmt::format("error {}", ENOTCONN);
  EXPECT_EQ(
      same_in_both([&](PodShell& shell, const Pod&) { return connected(shell, api_->v6, kEcho); }),
      (Names{echo, "POD6 port"}));
  EXPECT_EQ(same_in_both([&](PodShell& shell, const Pod& pod) {
              return connected(shell, api_->v6, kEcho, {.bind = pod.v6 + "/4321"});
            }),
            (Names{echo, "POD6 4321"}));
  EXPECT_EQ(same_in_both([&](PodShell& shell, const Pod&) {
              return connected(shell, api_->v6, kEcho, {.bind = "::/4322"});
            }),
            (Names{echo, "POD6 4322"}));
  EXPECT_EQ(same_in_both([&](PodShell& shell, const Pod&) {
              const int id = connected(shell, api_->v6, kSilent);
              EXPECT_TRUE(shell.shutdown(id));
              return id;
            }),
            (Names{fmt::format("{} {}", api_->v6, kSilent), "POD6 port"}))
      << "after a half-close";
  EXPECT_EQ(same_in_both([&](PodShell& shell, const Pod&) {
              const int id = connected(shell, api_->v6, kReset);
              EXPECT_TRUE(shell.send(id, "x"));
              EXPECT_EQ(shell.receive_to_end(id)->error_number, ECONNRESET);
              return id;
            }).peer,
            none)
      << "after a reset";
  EXPECT_EQ(same_in_both([&](PodShell& shell, const Pod&) {
              const int id = connected(shell, api_->v6, kEcho);
              EXPECT_TRUE(shell.disconnect(id));
              return id;
            }).peer,
            none)
      << "after a disconnect";
}

TEST_P(Ipv6OnlyTest, excluded_connections_are_left_alone) {
  annotate(kExcludePorts, fmt::format("{},{}", kEcho, kWhoami));
  is_excluded("excluded_port");
  same_for_server(true);
  annotate(kExcludePorts, "1");
  annotate(kExcludeCidrs, api_->v6 + "/128");
  is_excluded("excluded_cidr");
  same_for_server(true);
}

TEST_P(Ipv6OnlyTest, passthrough_is_observed) {
  label(kMode, "passthrough");
  const Counts before = counts();
  const Connection connection = echoed(api_->v6, kEcho, "observed");
  EXPECT_EQ(counts(), plus_one(before, "passthrough"));
  EXPECT_EQ(connection.shown, (Names{fmt::format("{} {}", api_->v6, kEcho), "POD6 port"}));
  const json flow = flow_of(connection);
  EXPECT_EQ(flow["endpoint"], endpoint_text(api_->v6, kEcho));
  EXPECT_EQ(flow["path"], "direct");
  EXPECT_EQ(flow["bytes_in"], 100'000);
  same_for_server(true);
}

// There is no way to IPv4. With a loopback it shows as deviation 2; without one there is nowhere to
// redirect to, and connect() says it itself.
TEST_P(Ipv6OnlyTest, ipv4_is_as_unreachable_as_without) {
  for (const Family family : {Family::kOfAddress, Family::kV6}) {
    for (const Blocking blocking : {Blocking::kYes, Blocking::kNo}) {
      SCOPED_TRACE(
          fmt::format("mapped {}, blocking {}", family == Family::kV6, blocking == Blocking::kYes));
      const ConnectOptions options{.family = family, .blocking = blocking};
      ST_ASSERT_VALUE(const auto control, control_->connect(api_->v4, kEcho, options));
      EXPECT_EQ(control.errno_name, "ENETUNREACH");
      const Counts before = counts();
      ST_ASSERT_VALUE(const auto socket, shell_->connect(api_->v4, kEcho, options));
      if (GetParam() == Loopback::kBoth) {
        ST_ASSERT_VALUE(const auto end, shell_->receive_to_end(socket.id));
        EXPECT_TRUE(socket.errno_name == "ECONNRESET" || end.error_number == ECONNRESET);
        EXPECT_EQ(end.length, 0U);
      } else {
        EXPECT_EQ(socket.errno_name, control.errno_name);
        EXPECT_EQ(socket.first_errno, control.first_errno);
        EXPECT_EQ(counts(), plus_one(before, "engine_down"));
      }
    }
  }
  for (const char* const address : {"::1", "127.0.0.1"}) {
    SCOPED_TRACE(address);
    ST_ASSERT_VALUE(const auto control, control_->connect(address, kClosed));
    const Counts before = counts();
    ST_ASSERT_VALUE(const auto socket, shell_->connect(address, kClosed));
    EXPECT_NE(control.errno_name, "");
    EXPECT_EQ(socket.errno_name, control.errno_name);
    EXPECT_EQ(counts(), plus_one(before, "local_destination"));
  }
}

INSTANTIATE_TEST_SUITE_P(With, Ipv6OnlyTest, testing::Values(Loopback::kBoth, Loopback::kV6),
                         [](const auto& loopback) {
                           return loopback.param == Loopback::kBoth ? "an_ipv4_loopback"
                                                                    : "no_ipv4_at_all";
                         });

}  // namespace
}  // namespace sidetrack::lab
