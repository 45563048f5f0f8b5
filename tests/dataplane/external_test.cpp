// SPDX-License-Identifier: Apache-2.0
// External engines: what goes to one and what does not, and what is said of it.
#include <fmt/format.h>
#include <signal.h>

#include <utility>

#include "tests/dataplane/external_node.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

class ExternalTest : public ExternalNode {
 protected:
  void wait_until_listening() const {
    EXPECT_TRUE(eventually(kPatience, [&] {
      const auto listeners =
          run_command({.arguments = {"ss", "-Hltn", fmt::format("sport = :{}", kProxyPort)},
                       .netns_path = lab_->node().path()});
      return listeners && !listeners->output.empty();
    })) << proxy_->output();
  }
};

TEST_F(ExternalTest, one_that_is_not_there_is_told_of_with_its_address) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  const std::string at = fmt::format("{}:{}", lab_->node_v4(), kProxyPort);
  ST_ASSERT_OK(sidetrack_->agent().wait_for_output("event=down"));
  EXPECT_NE(sidetrack_->agent().output().find("nothing listens on " + at), std::string::npos)
      << sidetrack_->agent().output();
  ST_ASSERT_VALUE(const json status, sidetrack_->get("/v1/status"));
  EXPECT_NE(status["problems"].dump().find("start the proxy at " + at), std::string::npos)
      << status["problems"];
}

TEST_F(ExternalTest, reloaded_haproxy_serves_on) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}, HaproxyKind::kMasterWorker));
  wait_until_redirected(server_->v4);
  for (int round = 0; round < 3; ++round) {
    ST_ASSERT_OK(proxy_->signal(SIGHUP));
    ST_ASSERT_VALUE(const auto burst,
                    shell_->burst(server_->v4, kEcho, {.count = 1000, .threads = 2}));
    EXPECT_EQ(burst.ok, 1000U) << proxy_->output();
    EXPECT_TRUE(burst.connect_errors.empty());
    wait_until_redirected(server_->v4);
  }
  expect_bytes(server_->v4);
}

TEST_F(ExternalTest, proxy_outside_of_the_engine_cgroup_is_reported_and_not_used) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ST_ASSERT_VALUE(const auto elsewhere, cgroup_->child("elsewhere"));
  ST_ASSERT_VALUE(
      proxy_, start_haproxy({lab_->node().path(), elsewhere}, *proxy_folder_, {lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  EXPECT_TRUE(eventually(kPatience, [&] {
    return engine_view().value("detail", "").find("not from --engine-cgroup") != std::string::npos;
  })) << engine_view().dump();
  EXPECT_EQ(engine_view()["state"], "down");
  EXPECT_EQ(verdict(server_->v4), "direct/engine_down");
  EXPECT_EQ(seen_by(server_->v4), client_->v4);
}

// Its listener stays in the cgroup that it was made in, whose program answers SO_ORIGINAL_DST.
TEST_F(ExternalTest, proxy_that_was_moved_into_the_engine_cgroup_is_not_used_either) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ST_ASSERT_VALUE(const auto elsewhere, cgroup_->child("elsewhere"));
  ST_ASSERT_VALUE(
      proxy_, start_haproxy({lab_->node().path(), elsewhere}, *proxy_folder_, {lab_->node_v4()}));
  wait_until_listening();
  ST_ASSERT_OK(write_existing(engine_cgroup_ + "/cgroup.procs", std::to_string(proxy_->pid())));
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  EXPECT_TRUE(eventually(kPatience, [&] {
    return engine_view().value("detail", "").find("not from --engine-cgroup") != std::string::npos;
  })) << engine_view().dump();
  EXPECT_EQ(verdict(server_->v4), "direct/engine_down");
  EXPECT_EQ(seen_by(server_->v4), client_->v4);
}

TEST_F(ExternalTest, family_without_an_address_goes_direct_with_the_reason) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  EXPECT_EQ(verdict(server_->v6), "direct/engine_down");
  EXPECT_EQ(seen_by(server_->v6), client_->v6);
}

// So it is said in docs/configuration.md, "External engines".
TEST_F(ExternalTest, haproxy_on_an_ipv6_socket_takes_itself_for_the_server) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({"::"}));
  wait_until_redirected(server_->v4);
  ST_ASSERT_VALUE(const auto socket, shell_->connect(server_->v4, kEcho));
  EXPECT_EQ(socket.errno_name, "");
  ST_ASSERT_OK(shell_->send(socket.id, "ping"));
  // By the rule that refuses connections to its own port.
  ST_ASSERT_VALUE(const auto nothing, shell_->receive(socket.id, 4));
  EXPECT_EQ(nothing.length, 0U);
  EXPECT_EQ(counted("redirected"), 1U);
}

TEST_F(ExternalTest, the_engines_own_address_is_never_redirected) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  const std::string v4 = lab_->node_v4();
  const std::string v6 = lab_->node_v6();
  ASSERT_NO_FATAL_FAILURE(start_agent({v4, v6}));
  ASSERT_NO_FATAL_FAILURE(listen_as_proxy(v4));
  ASSERT_NO_FATAL_FAILURE(listen_as_proxy(v6));
  for (const char* mode : {"redirect", "passthrough"}) {
    SCOPED_TRACE(mode);
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/mode", mode));
    const bool redirects = std::string(mode) == "redirect";
    const std::string other = redirects ? "redirected/redirected" : "direct/passthrough";
    const std::string own = redirects ? "local_destination" : "passthrough";
    // Another port of the same address is like any other.
    ASSERT_TRUE(eventually(kPatience, [&] { return verdict(v4) == other && verdict(v6) == other; }))
        << verdict(v4) << " " << verdict(v6);
    const auto before = counted(own);
    for (const std::string& to : {v4 + ":15001", "[" + v6 + "]:15001"}) {
      EXPECT_EQ(explain("client", to), "direct/" + own) << to;
    }
    for (const auto& [to, options] :
         {std::pair{v4, ConnectOptions{}}, {v6, {}}, {v4, {.family = Family::kV6}}}) {
      ST_ASSERT_VALUE(const auto socket, shell_->connect(to, kProxyPort, options));
      EXPECT_EQ(socket.errno_name, "") << to;
      ST_ASSERT_OK(shell_->close(socket.id));
    }
    EXPECT_EQ(counted(own), before + 3);
  }
  EXPECT_EQ(counted("redirected"), 0U);
  // Nor observed: what is excluded leaves no flow.
  ST_ASSERT_VALUE(const json flows, sidetrack_->get("/v1/flows"));
  EXPECT_EQ(flows["flows"], json::array());
}

// What a proxy asks the kernel, in place of one, for a pod of IPv6 alone.
TEST_F(ExternalTest, original_destination_of_ipv6_is_told_to_the_engine_only) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ST_ASSERT_OK(client_->netns.ip(
      fmt::format("addr del {}/24 dev eth0\naddr del 127.0.0.1/8 dev lo", client_->v4)));
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = "client",
                                     .netns_path = client_->netns.path(),
                                     .addresses = {client_->v6}}));
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v6()}));
  ASSERT_NO_FATAL_FAILURE(listen_as_proxy(lab_->node_v6()));
  ASSERT_TRUE(eventually(kPatience, [&] {
    return verdict(server_->v6) == "redirected/redirected";
  })) << verdict(server_->v6);
  ST_ASSERT_VALUE(const auto asked, shell_->connect(server_->v6, kEcho));
  ST_ASSERT_VALUE(const auto accepted, listener_->accept(listening_));
  EXPECT_EQ(accepted.address, client_->v6) << "who it is from";
  ST_ASSERT_VALUE(const auto told, listener_->original_destination(accepted.id));
  EXPECT_EQ(told.error_number, 0);
  EXPECT_EQ(told.address, server_->v6);
  EXPECT_EQ(told.port, kEcho);
  // Not as an IPv4 address; and of one that was not redirected, what the kernel itself says.
  ST_ASSERT_VALUE(const json as_v4,
                  listener_->command(fmt::format("original_dst {}", accepted.id)));
  EXPECT_NE(as_v4["errno"], 0);
  ST_ASSERT_VALUE(const auto own, shell_->connect(lab_->node_v6(), kProxyPort));
  ST_ASSERT_VALUE(const auto direct, listener_->accept(listening_));
  ST_ASSERT_VALUE(const auto untold, listener_->original_destination(direct.id));
  ST_ASSERT_VALUE(const auto expected, shell_->original_destination(own.id));
  EXPECT_NE(untold.error_number, 0);
  EXPECT_EQ(untold.error_number, expected.error_number);
  // The pod's names, as on plain TCP.
  ST_ASSERT_VALUE(const auto peer, shell_->peer_name(asked.id));
  ST_ASSERT_VALUE(const auto name, shell_->socket_name(asked.id));
  EXPECT_EQ(peer.address, server_->v6);
  EXPECT_EQ(name.address, client_->v6);
}

TEST_F(ExternalTest, no_engine_gives_passthrough_only) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(make_sidetrack({.engine = "none"}));
  ST_ASSERT_OK(sidetrack_->start_agent());
  EXPECT_TRUE(eventually(kPatience, [&] { return verdict(server_->v4) == "direct/passthrough"; }))
      << verdict(server_->v4);
  expect_bytes(server_->v4);
  EXPECT_EQ(seen_by(server_->v4), client_->v4);
  EXPECT_EQ(counted("redirected"), 0U);
  EXPECT_GT(counted("passthrough"), 0U);
}

}  // namespace
}  // namespace sidetrack::lab
