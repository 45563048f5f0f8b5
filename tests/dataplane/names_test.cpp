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

// The name of a connection, and the address that the server sees: without Sidetrack they are one.
struct Sight {
  std::string own;
  std::string seen;
  bool operator==(const Sight&) const = default;
};
void PrintTo(const Sight& sight, std::ostream* out) {
  *out << "own " << sight.own << ", the server sees " << sight.seen;
}

class NamesOfOtherAddresses : public NamesTest {
 protected:
  Sight sight(PodShell& shell, const std::string& address) {
    const int id = connected(shell, address, kWhoami);
    const auto own = shell.socket_name(id);
    const auto said = shell.receive(id, 100);
    return {.own = own ? own->address : own.error().message,
            .seen = said ? said->text.substr(0, said->text.find(' ')) : said.error().message};
  }
};

class NamesWithoutPodIps : public NamesOfOtherAddresses {
 protected:
  void start_sidetrack() override {
    ST_ASSERT_OK(objects_->put(
        PodSpec{.namespace_name = "shop", .name = "web", .netns_path = web_->netns.path()}));
    NamesTest::start_sidetrack();
  }
};

TEST_F(NamesWithoutPodIps, the_pods_own_address_is_shown_all_the_same) {
  EXPECT_EQ(sight(*shell_, api_->v4), (Sight{web_->v4, web_->v4}));
  EXPECT_EQ(sight(*shell_, api_->v6), (Sight{web_->v6, web_->v6}));
}

TEST_F(NamesWithoutPodIps, the_pods_own_address_is_a_local_destination) {
  for (const std::string& own : {web_->v4, web_->v6}) {
    EXPECT_EQ(explain(own, kEcho)["reason"], "local_destination") << own;
  }
}

// As Multus makes it: a second interface, by which the default route goes.
class NamesOfTwoInterfaces : public NamesOfOtherAddresses {
 protected:
  static constexpr const char* kFarV4 = "198.18.0.1";
  static constexpr const char* kFarV6 = "fd00:198:18::1";

  void start_sidetrack() override {
    for (const char* address : {kFarV4, kFarV6}) {
      ST_ASSERT_OK(lab_->add_service_address(address, *api_));
    }
    add_interface(*web_, 1);
    add_interface(*plain_, 2);
    NamesTest::start_sidetrack();
  }

  static std::string second_v4(int number) { return fmt::format("10.245.{}.2", number); }
  static std::string second_v6(int number) { return fmt::format("fd00:10:245:{}::2", number); }

 private:
  void add_interface(const Pod& pod, int number) {
    ST_ASSERT_OK(
        lab_->node().ip(fmt::format("link add net{0} type veth peer name net1 netns {1}\n"
                                    "addr add 10.245.{0}.1/24 dev net{0}\n"
                                    "addr add fd00:10:245:{0}::1/64 dev net{0} nodad\n"
                                    "link set net{0} up",
                                    number, pod.netns.name())));
    ST_ASSERT_OK(pod.netns.ip(
        fmt::format("link set net1 up\n"
                    "addr add {}/24 dev net1\n"
                    "addr add {}/64 dev net1 nodad\n"
                    "route replace default via 10.245.{}.1\n"
                    "route del default via {}\n"
                    "route add default via fd00:10:245:{}::1",
                    second_v4(number), second_v6(number), number, lab_->node_v6(), number)));
  }
};

TEST_F(NamesOfTwoInterfaces, what_leaves_by_the_default_route_shows_its_source) {
  EXPECT_EQ(sight(*control_, kFarV4), (Sight{second_v4(2), second_v4(2)}));
  EXPECT_EQ(sight(*shell_, kFarV4), (Sight{second_v4(1), second_v4(1)}));
  EXPECT_EQ(sight(*control_, kFarV6), (Sight{second_v6(2), second_v6(2)}));
  EXPECT_EQ(sight(*shell_, kFarV6), (Sight{second_v6(1), second_v6(1)}));
}

// The route is looked at again while the pod lives.
TEST_F(NamesOfTwoInterfaces, a_default_route_that_moves_is_followed) {
  const auto shown = [&] { return (*sidetrack_->pod("shop/web"))["addresses"].dump(); };
  ASSERT_NE(shown().find(second_v4(1)), std::string::npos) << shown();
  ST_ASSERT_OK(web_->netns.ip(fmt::format("route replace default via {}", lab_->node_v4())));
  ASSERT_TRUE(eventually(kPatience, [&] { return shown().find(web_->v4) != std::string::npos; }))
      << shown();
  EXPECT_EQ(sight(*shell_, kFarV4), (Sight{web_->v4, web_->v4}));
}

}  // namespace
}  // namespace sidetrack::lab
