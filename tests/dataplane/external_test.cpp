// SPDX-License-Identifier: Apache-2.0
// External engines: HAProxy and Envoy as they come, in the engine's cgroup on the node.
#include <fmt/format.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/types.h"
#include "tests/dataplane/proxies.h"
#include "tests/dataplane/scale_node.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

constexpr std::uint16_t kEcho = 7000;
constexpr std::uint16_t kWhoami = 7001;
constexpr unsigned kBytes = 3'000'000;
constexpr milliseconds kBeatIsOld{1200};  // ST_HEARTBEAT_STALE_NS and more

class ExternalTest : public ScaleNode {
 protected:
  void set_up_pods() {
    server_ = &plain_pod("server");
    other_ = &plain_pod("other");
    client_ = &meshed_pod("client");
    server_echo_ = echo_in(*server_, {"echo:7000", "whoami:7001"});
    other_echo_ = echo_in(*other_, {"echo:7000", "whoami:7001"});
    shell_ = shell_in(*client_);
    ST_ASSERT_VALUE(engine_cgroup_, cgroup_->child("engine"));
    ST_ASSERT_VALUE(auto folder, TempDir::create("proxy"));
    proxy_folder_ = std::make_unique<TempDir>(std::move(folder));
  }

  // The agent, told of `addresses`.
  void start_agent(const std::vector<std::string>& addresses) {
    std::string engine = "external=";
    for (const std::string& address : addresses) {
      engine += engine.back() == '=' ? "" : ",";
      engine += address.find(':') == std::string::npos ? address : "[" + address + "]";
      engine += fmt::format(":{}", kProxyPort);
    }
    ASSERT_NO_FATAL_FAILURE(
        make_sidetrack({.engine = engine, .agent_arguments = {"--engine-cgroup", engine_cgroup_}}));
    ST_ASSERT_OK(sidetrack_->start_agent());
    ASSERT_NO_FATAL_FAILURE(wait_until_enrolled("client"));
  }

  void start_haproxy_here(const std::vector<std::string>& addresses,
                          HaproxyKind kind = HaproxyKind::kPlain) {
    ST_ASSERT_VALUE(proxy_, start_haproxy({lab_->node().path(), engine_cgroup_}, *proxy_folder_,
                                          addresses, kind));
  }

  void start_envoy_here(const std::vector<std::string>& addresses) {
    const auto envoy = find_envoy();
    if (!envoy && envoy.error().code == ErrorCode::kNotFound) {
      GTEST_SKIP() << "the package registry cannot be reached: " << envoy.error().message;
    }
    ST_ASSERT_OK(envoy);
    ST_ASSERT_VALUE(proxy_, start_envoy(*envoy, {lab_->node().path(), engine_cgroup_},
                                        *proxy_folder_, addresses));
  }

  [[nodiscard]] json engine_view() const {
    const auto status = sidetrack_->get("/v1/status");
    return status ? status->value("engine", json::object()) : json::object();
  }

  [[nodiscard]] std::string verdict(const std::string& address) const {
    const std::string host = address.find(':') == std::string::npos ? address : "[" + address + "]";
    return explain("client", fmt::format("{}:{}", host, kEcho));
  }

  void wait_until_redirected(const std::string& address) {
    EXPECT_TRUE(eventually(scaled(milliseconds(30'000)),
                           [&] { return verdict(address) == "redirected/redirected"; }))
        << verdict(address) << "\n"
        << engine_view().dump() << "\n"
        << proxy_->output();
  }

  // A listener on the proxy's address, in its place, that only accepts: a proxy that is asked for
  // nothing might ask itself.
  void listen_as_proxy(const std::string& address) {
    if (!listener_) {
      ST_ASSERT_VALUE(listener_, PodShell::start({lab_->node().path(), engine_cgroup_}));
    }
    ST_ASSERT_VALUE(const auto socket, listener_->listen(address, kProxyPort));
    ASSERT_EQ(socket.error_number, 0) << address;
    listening_ = socket.id;
  }

  // Whether the kernel sees the listener's close, so that it needs no agent that looks.
  [[nodiscard]] bool is_watched() const {
    const auto rows = sidetrack_->dump_map("st_engines");
    return rows && rows->at(ST_EXTERNAL_ENGINE_SLOT)
                           .value(json::json_pointer("/formatted/value/beat_ns"),
                                  std::uint64_t{0}) == ST_BEAT_NOT_NEEDED;
  }

  void wait_until_left_out(const std::string& why) {
    ASSERT_TRUE(eventually(kPatience, [&] { return verdict(server_->v4) == "direct/engine_full"; }))
        << engine_view().dump();
    EXPECT_EQ(engine_view()["state"], "full");
    EXPECT_NE(engine_view().value("detail", "").find(why), std::string::npos)
        << engine_view().dump();
  }

  // A proxy that was stopped: what has waited for it is served, too.
  void expect_to_go_on(int waiting) {
    ST_ASSERT_OK(proxy_->signal(SIGCONT));
    wait_until_redirected(server_->v4);
    expect_bytes(server_->v4);
    EXPECT_EQ(seen_by(server_->v4), lab_->node_v4());
    ST_ASSERT_VALUE(const auto done, shell_->exchange(waiting, 1000));
    EXPECT_EQ(done.digest, done.expected_digest);
  }

  // Who the server at `address` sees: the proxy is on the node, a direct connection is the pod's.
  std::string seen_by(const std::string& address, Family family = Family::kOfAddress) {
    const auto socket = shell_->connect(address, kWhoami, {.family = family});
    if (!socket || socket->error_number != 0) {
      return socket ? socket->errno_name : socket.error().message;
    }
    const auto line = shell_->receive(socket->id, 100);
    return line ? line->text.substr(0, line->text.find(' ')) : line.error().message;
  }

  void expect_bytes(const std::string& address) {
    ST_ASSERT_VALUE(const auto burst, shell_->burst(address, kEcho, {.count = 200, .threads = 4}));
    EXPECT_EQ(burst.ok, 200U) << address << " " << burst.connect_errors.size() << " connect, "
                              << burst.io_errors.size() << " io errors";
    expect_stream(address, Family::kOfAddress);
  }

  // An AF_INET6 socket that asks for an IPv4 address.
  void expect_mapped(const Pod& pod) {
    expect_stream(pod.v4, Family::kV6);
    EXPECT_EQ(seen_by(pod.v4, Family::kV6), lab_->node_v4());
  }

  void expect_stream(const std::string& address, Family family) {
    ST_ASSERT_VALUE(const auto socket, shell_->connect(address, kEcho, {.family = family}));
    EXPECT_EQ(socket.errno_name, "");
    ST_ASSERT_VALUE(const auto peer, shell_->peer_name(socket.id));
    EXPECT_EQ(peer.address, family == Family::kV6 ? "::ffff:" + address : address);
    // Without a half-close: HAProxy 2.6 takes a FIN that it is told of while it waits for room to
    // write to the client for the end of all input. It then calls shutdown() towards the server and
    // close() with the rest of the client's bytes unread (seen in its system calls).
    ST_ASSERT_VALUE(const auto done, shell_->command(fmt::format("exchange {} len={} seed=1 open",
                                                                 socket.id, kBytes)));
    // Cut short or corrupted: two different things.
    EXPECT_EQ(done.value("errno", -1), 0)
        << address << ", send errno " << done.value("send_errno", -1);
    EXPECT_EQ(done.value("length", 0U), kBytes)
        << address << ", sent " << done.value("sent", 0U) << "\n"
        << (proxy_ ? proxy_->output() : "");
    EXPECT_EQ(done.value("digest", ""), done.value("expected_digest", "-")) << address;
    ST_ASSERT_OK(shell_->close(socket.id));
  }

  Pod* server_ = nullptr;
  Pod* other_ = nullptr;
  Pod* client_ = nullptr;
  std::unique_ptr<EchoServer> server_echo_;
  std::unique_ptr<EchoServer> other_echo_;
  std::unique_ptr<PodShell> shell_;
  std::string engine_cgroup_;
  std::unique_ptr<TempDir> proxy_folder_;
  std::unique_ptr<Process> proxy_;
  std::unique_ptr<PodShell> listener_;
  int listening_ = 0;  // its latest
};

TEST_F(ExternalTest, haproxy_forwards_to_the_server_that_was_asked_for) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  for (const Pod* pod : {server_, other_}) {
    expect_bytes(pod->v4);
    EXPECT_EQ(seen_by(pod->v4), lab_->node_v4());
    expect_mapped(*pod);
  }
  EXPECT_EQ(counted("redirected"), 2 * 204U);
  ST_ASSERT_VALUE(const std::string rules, lab_->firewall_rules());
  EXPECT_EQ(rules, "");
  // Asked by itself, not redirected.
  ST_ASSERT_VALUE(const auto own, shell_->connect(lab_->node_v4(), kProxyPort));
  ST_ASSERT_VALUE(const auto nothing, shell_->receive_to_end(own.id));
  EXPECT_EQ(nothing.length, 0U);
  EXPECT_EQ(engine_view()["state"], "up");
}

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

TEST_F(ExternalTest, haproxy_that_is_older_than_the_agent_outlives_it_and_its_death_is_seen) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  EXPECT_TRUE(eventually(kPatience, [&] { return is_watched(); }))
      << "the kernel is older than 6.12, or " << sidetrack_->logs();
  sidetrack_->agent().kill_hard();
  ST_ASSERT_OK(sidetrack_->start_agent());
  wait_until_redirected(server_->v4);
  expect_bytes(server_->v4);
  sidetrack_->agent().kill_hard();
  EXPECT_FALSE(eventually(kBeatIsOld, [&] { return seen_by(server_->v4) != lab_->node_v4(); }));
  proxy_->kill_hard();
  ST_ASSERT_VALUE(const auto burst, shell_->burst(server_->v4, kEcho, {.count = 50}));
  EXPECT_EQ(burst.ok, 50U);
  EXPECT_EQ(seen_by(server_->v4), client_->v4);
}

TEST_F(ExternalTest, killed_haproxy_is_lost_in_the_same_instant) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  for (int round = 0; round < 5; ++round) {
    ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
    wait_until_redirected(server_->v4);
    const auto before = counted("engine_down");
    proxy_->kill_hard();  // returns when it is reaped: its listener is closed
    ST_ASSERT_VALUE(const auto burst, shell_->burst(server_->v4, kEcho, {.count = 50}));
    EXPECT_EQ(burst.ok, 50U) << round;
    EXPECT_EQ(counted("engine_down"), before + 50) << round;
  }
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

TEST_F(ExternalTest, family_without_an_address_goes_direct_with_the_reason) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  EXPECT_EQ(verdict(server_->v6), "direct/engine_down");
  EXPECT_EQ(seen_by(server_->v6), client_->v6);
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

TEST_F(ExternalTest, haproxy_with_a_full_queue_is_left_out_until_it_goes_on) {
  constexpr std::uint64_t kQueue = 64;
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ST_ASSERT_OK(lab_->node().write_sysctl("core/somaxconn", std::to_string(kQueue)));
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  expect_bytes(server_->v4);
  ST_ASSERT_OK(proxy_->signal(SIGSTOP));
  ST_ASSERT_VALUE(const auto waiting, shell_->connect(server_->v4, kEcho));
  EXPECT_EQ(waiting.errno_name, "");
  ST_ASSERT_VALUE(const auto held, shell_->hold(server_->v4, kEcho, kQueue * 3 / 4));
  ASSERT_EQ(held, kQueue * 3 / 4);
  // At the next look, not after a second.
  wait_until_left_out("three quarters full");
  const auto direct = counted("engine_full");
  ST_ASSERT_VALUE(const auto burst, shell_->burst(server_->v4, kEcho, {.count = 50}));
  EXPECT_EQ(burst.ok, 50U);
  // A SYN that is dropped comes again after a second.
  EXPECT_LT(burst.max_us, 1'000'000);
  EXPECT_EQ(seen_by(server_->v4), client_->v4);
  EXPECT_EQ(counted("engine_full"), direct + 51);
  expect_to_go_on(waiting.id);
}

// With the queue that a kernel gives by default, thousands would have to wait for it to be full.
TEST_F(ExternalTest, haproxy_that_is_stopped_is_left_out_after_a_second) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  ST_ASSERT_VALUE(const auto busy,
                  shell_->burst(server_->v4, kEcho, {.count = 2000, .threads = 16}));
  EXPECT_EQ(busy.ok, 2000U);
  EXPECT_EQ(counted("redirected"), 2000U) << "a busy proxy was taken for one that hangs";
  ST_ASSERT_OK(proxy_->signal(SIGSTOP));
  const auto stopped = Clock::now();
  ST_ASSERT_VALUE(const auto waiting, shell_->connect(server_->v4, kEcho));
  EXPECT_EQ(waiting.errno_name, "");
  wait_until_left_out("accepted none for a second");
  const auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - stopped);
  RecordProperty("busy_ms", std::to_string(busy.total_us / 1000));
  RecordProperty("left_out_after_ms", std::to_string(took.count()));
  EXPECT_GE(took, milliseconds(1000));
  EXPECT_LT(took, scaled(milliseconds(2000))) << "a second, two looks and what the machine takes";
  EXPECT_EQ(seen_by(server_->v4), client_->v4);
  expect_to_go_on(waiting.id);
}

TEST_F(ExternalTest, haproxy_that_is_full_or_dead_refuses_if_the_pod_says_closed) {
  constexpr std::uint64_t kQueue = 64;
  const std::string refused = "refused/engine_down_closed";
  const auto expect_refused = [&] {
    const auto before = counted("engine_down_closed");
    ST_ASSERT_VALUE(const auto burst, shell_->burst(server_->v4, kEcho, {.count = 20}));
    EXPECT_EQ(json(burst.connect_errors), (json{{"ECONNREFUSED", 20}}));
    EXPECT_EQ(counted("engine_down_closed"), before + 20);
  };
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ST_ASSERT_OK(
      objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/on-engine-loss", "closed"));
  ST_ASSERT_OK(lab_->node().write_sysctl("core/somaxconn", std::to_string(kQueue)));
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  ST_ASSERT_OK(proxy_->signal(SIGSTOP));
  ST_ASSERT_VALUE(const auto waiting, shell_->connect(server_->v4, kEcho));
  ST_ASSERT_OK(shell_->hold(server_->v4, kEcho, kQueue * 3 / 4));
  ASSERT_TRUE(eventually(kPatience, [&] { return verdict(server_->v4) == refused; }))
      << verdict(server_->v4) << engine_view().dump();
  EXPECT_EQ(engine_view()["state"], "full");
  expect_refused();
  ASSERT_NO_FATAL_FAILURE(expect_to_go_on(waiting.id));
  proxy_->kill_hard();
  expect_refused();
  ASSERT_NO_FATAL_FAILURE(start_haproxy_here({lab_->node_v4()}));
  wait_until_redirected(server_->v4);
  expect_bytes(server_->v4);
  EXPECT_EQ(counted("engine_full") + counted("engine_down"), 0U) << "something went direct";
}

TEST_F(ExternalTest, proxy_whose_queue_is_never_empty_but_moves_is_left_in) {
  constexpr std::uint64_t kWaiting = 3;
  constexpr std::uint64_t kAccepted = 4;
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4()}));
  ASSERT_NO_FATAL_FAILURE(listen_as_proxy(lab_->node_v4()));
  ASSERT_TRUE(
      eventually(kPatience, [&] { return verdict(server_->v4) == "redirected/redirected"; }));
  ST_ASSERT_VALUE(const auto held, shell_->hold(server_->v4, kEcho, kWaiting));
  ASSERT_EQ(held, kWaiting);
  // One comes for each that is accepted.
  for (std::uint64_t i = 0; i < kAccepted; ++i) {
    EXPECT_FALSE(
        eventually(milliseconds(400), [&] { return engine_view().value("state", "") != "up"; }))
        << i << " " << engine_view().dump();
    ST_ASSERT_VALUE(const auto next, shell_->hold(server_->v4, kEcho, 1));
    ASSERT_EQ(next, 1U);
    ST_ASSERT_VALUE(const auto accepted, listener_->accept(listening_));
    ASSERT_EQ(accepted.error_number, 0);
  }
  EXPECT_EQ(counted("redirected"), kWaiting + kAccepted);
}

TEST_F(ExternalTest, envoy_forwards_both_families_to_the_server_that_was_asked_for) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4(), lab_->node_v6()}));
  ASSERT_NO_FATAL_FAILURE(start_envoy_here({lab_->node_v4(), lab_->node_v6()}));
  if (IsSkipped()) {
    return;
  }
  wait_until_redirected(server_->v4);
  wait_until_redirected(server_->v6);
  for (const Pod* pod : {server_, other_}) {
    expect_bytes(pod->v4);
    expect_bytes(pod->v6);
    EXPECT_EQ(seen_by(pod->v4), lab_->node_v4());
    EXPECT_EQ(seen_by(pod->v6), lab_->node_v6());
    expect_mapped(*pod);
  }
}

TEST_F(ExternalTest, killed_envoy_is_lost_in_the_same_instant) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  ASSERT_NO_FATAL_FAILURE(start_agent({lab_->node_v4(), lab_->node_v6()}));
  ASSERT_NO_FATAL_FAILURE(start_envoy_here({lab_->node_v4(), lab_->node_v6()}));
  if (IsSkipped()) {
    return;
  }
  wait_until_redirected(server_->v4);
  wait_until_redirected(server_->v6);
  proxy_->kill_hard();
  for (const std::string& address : {server_->v4, server_->v6}) {
    ST_ASSERT_VALUE(const auto burst, shell_->burst(address, kEcho, {.count = 50}));
    EXPECT_EQ(burst.ok, 50U) << address;
  }
  EXPECT_EQ(counted("engine_down"), 100U);
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
