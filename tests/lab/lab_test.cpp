// SPDX-License-Identifier: Apache-2.0
// The lab itself, without Sidetrack: what plain TCP does here is the control of every other
// dataplane test.
#include "tests/lab/lab.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "sidetrack/cgroup/process_cgroup.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/echo_server.h"
#include "tests/lab/pod_shell.h"
#include "tests/lab/proc_stats.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {
namespace {

// Entries of `folder` that this process named.
std::vector<std::string> own_entries(const std::string& folder) {
  const std::string prefix = fmt::format("st-{}-", ::getpid());
  std::vector<std::string> names;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failure)) {
    if (entry.path().filename().string().starts_with(prefix)) {
      names.push_back(entry.path().filename().string());
    }
  }
  return names;
}

class LabTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("lab"));
    cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
    ST_ASSERT_VALUE(lab_, Lab::create("lab"));
    ST_ASSERT_VALUE(client_, lab_->add_pod("client"));
    ST_ASSERT_VALUE(server_, lab_->add_pod("server"));
    ST_ASSERT_VALUE(echo_, EchoServer::start(place(*server_),
                                             {"echo:0", "greeting:0", "hash:0", "whoami:0",
                                              "reset:0", "stream:0:1000000", "http:0", "udp:0"}));
    ST_ASSERT_VALUE(shell_, PodShell::start(place(*client_)));
  }

  [[nodiscard]] Place place(const Pod& pod) const { return {pod.netns.path(), cgroup_->path()}; }

  std::unique_ptr<TestCgroup> cgroup_;
  std::unique_ptr<Lab> lab_;
  Pod* client_ = nullptr;
  Pod* server_ = nullptr;
  std::unique_ptr<EchoServer> echo_;
  std::unique_ptr<PodShell> shell_;
};

TEST_F(LabTest, tells_rules_of_any_namespace) {
  ST_ASSERT_VALUE(const std::string none, lab_->firewall_rules());
  EXPECT_EQ(none, "");
  ST_ASSERT_VALUE(const auto added,
                  run_command({.arguments = {"nft", "add", "table", "inet", "odd"},
                               .netns_path = server_->netns.path()}));
  EXPECT_EQ(added.exit_status, 0) << added.output;
  ST_ASSERT_VALUE(const std::string some, lab_->firewall_rules());
  EXPECT_NE(some.find("table inet odd"), std::string::npos) << some;
}

TEST_F(LabTest, pods_exchange_bytes_over_ipv4) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(server_->v4, echo_->port("echo")));
  EXPECT_EQ(socket.error_number, 0);
  ST_ASSERT_VALUE(auto done, shell_->exchange(socket.id, 3'000'000, 7));
  EXPECT_EQ(done.error_number, 0);
  EXPECT_EQ(done.length, 3'000'000U);
  EXPECT_EQ(done.digest, done.expected_digest);
}

TEST_F(LabTest, pods_exchange_bytes_over_ipv6) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(server_->v6, echo_->port("echo")));
  EXPECT_EQ(socket.error_number, 0);
  ST_ASSERT_VALUE(auto done, shell_->exchange(socket.id, 1'000'000));
  EXPECT_EQ(done.length, 1'000'000U);
  EXPECT_EQ(done.digest, done.expected_digest);
}

TEST_F(LabTest, mapped_address_reaches_ipv4) {
  ST_ASSERT_VALUE(auto socket,
                  shell_->connect(server_->v4, echo_->port("whoami"), {.family = Family::kV6}));
  EXPECT_EQ(socket.error_number, 0);
  ST_ASSERT_VALUE(auto peer, shell_->peer_name(socket.id));
  EXPECT_EQ(peer.address, "::ffff:" + server_->v4);
  ST_ASSERT_VALUE(auto seen, shell_->receive(socket.id, 100));
  EXPECT_TRUE(seen.text.starts_with(client_->v4 + " ")) << seen.text;
}

TEST_F(LabTest, service_addresses_lead_to_their_pod) {
  ST_ASSERT_OK(lab_->add_service_address("10.96.0.10", *server_));
  ST_ASSERT_OK(lab_->add_service_address("fd00:10:96::a", *server_));
  ST_ASSERT_VALUE(auto v4,
                  shell_->burst("10.96.0.10", echo_->port("echo"), {.count = 20, .threads = 2}));
  ST_ASSERT_VALUE(auto v6,
                  shell_->burst("fd00:10:96::a", echo_->port("echo"), {.count = 20, .threads = 2}));
  EXPECT_EQ(v4.ok, 20U);
  EXPECT_EQ(v6.ok, 20U);
}

TEST_F(LabTest, closed_port_refuses) {
  ST_ASSERT_VALUE(auto blocking, shell_->connect(server_->v4, 1));
  EXPECT_EQ(blocking.errno_name, "ECONNREFUSED");
  ST_ASSERT_VALUE(auto other, shell_->connect(server_->v4, 1, {.blocking = Blocking::kNo}));
  EXPECT_EQ(other.first_errno, EINPROGRESS);
  EXPECT_EQ(other.errno_name, "ECONNREFUSED");
}

TEST_F(LabTest, half_closed_connection_still_receives) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(server_->v4, echo_->port("hash")));
  ST_ASSERT_VALUE(auto done, shell_->command(fmt::format("send {} len=100000 seed=3", socket.id)));
  EXPECT_EQ(done["sent"], 100'000);
  ST_ASSERT_OK(shell_->shutdown(socket.id));
  ST_ASSERT_VALUE(auto answer, shell_->receive(socket.id, 100));
  EXPECT_TRUE(answer.text.starts_with("100000 ")) << answer.text;
}

TEST_F(LabTest, server_speaks_first) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(server_->v4, echo_->port("greeting")));
  ST_ASSERT_VALUE(auto hello, shell_->receive(socket.id, 7));
  EXPECT_EQ(hello.text, "hello\r\n");
  ST_ASSERT_OK(shell_->send(socket.id, "ping"));
  ST_ASSERT_VALUE(auto ping, shell_->receive(socket.id, 4));
  EXPECT_EQ(ping.text, "ping");
}

TEST_F(LabTest, stream_and_http_answer) {
  ST_ASSERT_VALUE(auto stream, shell_->connect(server_->v6, echo_->port("stream")));
  ST_ASSERT_VALUE(auto all, shell_->receive_to_end(stream.id));
  EXPECT_EQ(all.length, 1'000'000U);
  ST_ASSERT_VALUE(auto http, shell_->connect(server_->v4, echo_->port("http")));
  ST_ASSERT_OK(
      shell_->send(http.id, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  ST_ASSERT_VALUE(auto heads, shell_->receive(http.id, 130));
  EXPECT_EQ(heads.text.substr(0, 15), "HTTP/1.1 200 OK");
}

TEST_F(LabTest, reset_shows_as_econnreset) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(server_->v4, echo_->port("reset")));
  ST_ASSERT_OK(shell_->send(socket.id, "x"));
  ST_ASSERT_VALUE(auto end, shell_->receive_to_end(socket.id));
  EXPECT_EQ(end.error_number, ECONNRESET);
}

TEST_F(LabTest, fast_open_delivers_its_data) {
  const std::uint16_t port = echo_->port("echo");
  ST_ASSERT_VALUE(auto sendto,
                  shell_->connect(server_->v4, port,
                                  {.fast_open = FastOpen::kSendto, .fast_open_data = "early"}));
  ST_ASSERT_VALUE(auto early, shell_->receive(sendto.id, 5));
  EXPECT_EQ(early.text, "early");
  ST_ASSERT_VALUE(auto deferred,
                  shell_->connect(server_->v4, port, {.fast_open = FastOpen::kConnect}));
  ST_ASSERT_OK(shell_->send(deferred.id, "later"));
  ST_ASSERT_VALUE(auto later, shell_->receive(deferred.id, 5));
  EXPECT_EQ(later.text, "later");
}

TEST_F(LabTest, mptcp_client_talks_to_plain_server) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(server_->v4, echo_->port("echo"),
                                               {.protocol = Protocol::kMptcp}));
  if (socket.error_number == EPROTONOSUPPORT || socket.error_number == ENOPROTOOPT) {
    GTEST_SKIP() << "this kernel has no MPTCP";
  }
  ST_ASSERT_VALUE(auto done, shell_->exchange(socket.id, 100'000));
  EXPECT_EQ(done.digest, done.expected_digest);
}

TEST_F(LabTest, bound_sockets_keep_their_source) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(server_->v4, echo_->port("whoami"),
                                               {.bind = client_->v4 + "/4321", .device = "eth0"}));
  EXPECT_EQ(socket.error_number, 0);
  ST_ASSERT_VALUE(auto seen, shell_->receive(socket.id, 100));
  EXPECT_EQ(seen.text, client_->v4 + " 4321\n");
}

TEST_F(LabTest, disconnected_socket_connects_elsewhere) {
  ST_ASSERT_VALUE(auto socket, shell_->connect(server_->v4, echo_->port("echo")));
  ST_ASSERT_VALUE(auto second, shell_->connect_again(socket.id, server_->v4, echo_->port("echo")));
  EXPECT_EQ(second.error_number, EISCONN);
  ST_ASSERT_VALUE(auto apart, shell_->disconnect(socket.id));
  EXPECT_EQ(apart.error_number, 0);
  ST_ASSERT_VALUE(auto again,
                  shell_->connect_again(socket.id, server_->v4, echo_->port("greeting")));
  EXPECT_EQ(again.error_number, 0);
  ST_ASSERT_VALUE(auto peer, shell_->peer_name(socket.id));
  EXPECT_EQ(peer.port, echo_->port("greeting"));
}

TEST_F(LabTest, shell_listens_and_accepts) {
  ST_ASSERT_VALUE(auto listening, shell_->listen("::", 0));
  ST_ASSERT_VALUE(auto socket, shell_->connect("127.0.0.1", listening.port));
  ST_ASSERT_VALUE(auto accepted, shell_->accept(listening.id));
  EXPECT_EQ(accepted.address, "::ffff:127.0.0.1");
  ST_ASSERT_VALUE(auto original, shell_->original_destination(accepted.id));
  EXPECT_NE(original.error_number, 0);
  ST_ASSERT_VALUE(auto cookie, shell_->cookie(socket.id));
  EXPECT_NE(cookie, 0U);
}

TEST_F(LabTest, datagrams_come_back) {
  ST_ASSERT_VALUE(auto v4, shell_->udp_exchange(server_->v4, echo_->port("udp")));
  ST_ASSERT_VALUE(auto v6, shell_->udp_exchange(server_->v6, echo_->port("udp")));
  EXPECT_TRUE(v4);
  EXPECT_TRUE(v6);
}

TEST_F(LabTest, held_connections_exhaust_a_small_port_range) {
  ST_ASSERT_OK(Lab::set_port_range(*client_, 40000, 40009));
  ST_ASSERT_VALUE(auto opened, shell_->hold(server_->v4, echo_->port("echo"), 12));
  EXPECT_EQ(opened, 10U);
  ST_ASSERT_VALUE(auto over, shell_->connect(server_->v4, echo_->port("echo")));
  EXPECT_EQ(over.errno_name, "EADDRNOTAVAIL");
  ST_ASSERT_VALUE(auto released, shell_->release());
  EXPECT_EQ(released, 10U);
}

TEST_F(LabTest, processes_are_in_cgroup_and_netns) {
  std::ifstream text(fmt::format("/proc/{}/cgroup", shell_->process().pid()));
  const std::string groups{std::istreambuf_iterator<char>(text), {}};
  EXPECT_NE(groups.find(std::filesystem::path(cgroup_->path()).filename().string()),
            std::string::npos)
      << groups;
  EXPECT_NE(cgroup_->id(), 0U);
  ST_ASSERT_VALUE(auto a, client_->netns.cookie());
  ST_ASSERT_VALUE(auto b, server_->netns.cookie());
  EXPECT_NE(a, b);
}

TEST_F(LabTest, nothing_is_left_behind) {
  ST_ASSERT_VALUE(const std::string root, cgroup::find_hierarchy());
  const std::string temporary = std::filesystem::temp_directory_path().string();
  ST_ASSERT_VALUE(auto folder, TempDir::create("left"));
  EXPECT_EQ(own_entries("/run/netns").size(), 3U);
  EXPECT_EQ(own_entries(root).size(), 1U);
  const pid_t leftover = echo_->process().pid();
  // The cgroup goes first: it has to end its members itself.
  cgroup_.reset();
  EXPECT_TRUE(eventually(kPatience, [&] { return !echo_->process().running(); })) << leftover;
  shell_.reset();
  echo_.reset();
  lab_.reset();
  { const TempDir gone = std::move(folder); }
  EXPECT_TRUE(own_entries("/run/netns").empty());
  EXPECT_TRUE(own_entries(root).empty());
  EXPECT_TRUE(own_entries(temporary).empty());
}

TEST_F(LabTest, sidetrack_without_programs_fails_clearly_and_leaves_nothing) {
  const std::string temporary = std::filesystem::temp_directory_path().string();
  ::setenv("ST_BIN_DIR", "/nonexistent", 1);
  ST_ASSERT_VALUE(auto sidetrack, Sidetrack::create(*cgroup_, {.netns_path = lab_->node().path()}));
  EXPECT_EQ(own_entries(temporary).size(), 1U);
  const auto started = sidetrack->start();
  EXPECT_FALSE(started.has_value());
  EXPECT_EQ(started.error().message, "run /nonexistent/sidetrack-agent: No such file or directory");
  EXPECT_FALSE(sidetrack->get("/v1/status").has_value());
  sidetrack.reset();
  ::unsetenv("ST_BIN_DIR");
  EXPECT_TRUE(own_entries(temporary).empty());
}

TEST(Process, reports_exit_output_and_time_out) {
  ST_ASSERT_VALUE(auto done, run_command({.arguments = {"sh", "-c", "cat; echo oops >&2; exit 3"},
                                          .input = "text\n"}));
  EXPECT_EQ(done.exit_status, 3);
  EXPECT_EQ(done.standard_output, "text\n");
  EXPECT_NE(done.output.find("oops"), std::string::npos);
  ST_ASSERT_VALUE(auto cat, Process::start({.arguments = {"cat"}}));
  EXPECT_EQ(cat->wait(milliseconds(20)).error().code, ErrorCode::kBusy);
  ST_ASSERT_OK(cat->write("ping\n"));
  ST_ASSERT_OK(cat->wait_for_output("ping"));
  ST_ASSERT_VALUE(const int status, cat->terminate());
  EXPECT_EQ(status, 128 + SIGTERM);
}

TEST(Process, stands_still_once_it_was_told_to_stop) {
  constexpr int kRounds = 100;
  ST_ASSERT_VALUE(auto busy, Process::start({.arguments = {"sh", "-c", "while :; do :; done"}}));
  int stopped = 0;
  for (int round = 0; round < kRounds; ++round) {
    ST_ASSERT_OK(busy->signal(SIGSTOP));
    stopped += process_state(busy->pid()) == 'T' ? 1 : 0;
    ST_ASSERT_OK(busy->signal(SIGCONT));
  }
  EXPECT_EQ(stopped, kRounds);
}

TEST(Process, says_what_cannot_be_started) {
  const auto missing = run_command({.arguments = {"st-no-such-program"}});
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().message, "run st-no-such-program: No such file or directory");
  const auto nowhere = run_command({.arguments = {"true"}, .netns_path = "/run/netns/st-none"});
  ASSERT_FALSE(nowhere.has_value());
  EXPECT_EQ(nowhere.error().message, "enter netns /run/netns/st-none: No such file or directory");
}

TEST(Netns, failing_commands_say_why) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  ST_ASSERT_VALUE(auto netns, Netns::create("x"));
  const auto failed = netns.ip("link set nosuch up");
  ASSERT_FALSE(failed.has_value());
  EXPECT_NE(failed.error().message.find("nosuch"), std::string::npos) << failed.error().message;
}

}  // namespace
}  // namespace sidetrack::lab
