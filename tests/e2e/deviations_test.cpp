// SPDX-License-Identifier: Apache-2.0
// How applications can tell, and how they cannot. dNN_...: deviation NN of docs/deviations.md, seen
// from both pods: what the control must say and what the redirected client may say instead.
// same_...: behaviour that must not differ. What is about packets and the network beyond the pod is
// in network_deviations_test.cpp.
#include "tests/e2e/deviations.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <functional>

#include <nlohmann/json.hpp>

namespace sidetrack::lab {
namespace {

class Deviations : public DeviationsPair {
 protected:
  // Runs a probe that says "connected" and then waits for a line: `cut` comes in between.
  std::string run_cut(const Pod& pod, const Client& program, const std::function<void()>& cut);
  // ... as which the server's answers to `pod` are lost.
  std::string run_without_answers(const Pod& pod, const Client& program);
  // Of a probe in one pod, redirected or not.
  static std::string run_alone(const Pod& pod, const Client& program);
  // A Service of depot on port 7204, and waits until the engine knows it.
  static void put_service(const std::string& name, const std::string& address,
                          const std::vector<Backend>& backends);
};

std::string Deviations::run_alone(const Pod& pod, const Client& program) {
  const auto result = run_command({.arguments = program.arguments,
                                   .netns_path = pod.netns.path(),
                                   .cgroup_path = cgroup_->path(),
                                   .within = kClientPatience});
  return result ? result->output : result.error().message;
}

void Deviations::put_service(const std::string& name, const std::string& address,
                             const std::vector<Backend>& backends) {
  ST_ASSERT_OK(objects_->put(ServiceSpec{.namespace_name = "depot",
                                         .name = name,
                                         .cluster_addresses = {address},
                                         .port = 7204,
                                         .target_port = 7204,
                                         .backends = backends}));
  const std::string target =
      fmt::format("/v1/explain?namespace=shop&pod=web&destination={}:7204", address);
  ASSERT_TRUE(eventually(kPatience, [&] {
    const auto answer = sidetrack_->get(target);
    return answer && answer->value("endpoints", nlohmann::json()).size() == backends.size();
  }));
}

TEST_F(Deviations, d01_refusal_shows_as_reset_after_connect) {
  for (const std::string& host : {server_->v4, server_->v6}) {
    expect(probe("read", {host, "9"}), "connect ECONNREFUSED\n",
           "connect ok\nread ECONNRESET\nagain b''\n");
  }
  // A socket that does not block may be looked at before or after the reset has come.
  const Outcomes outcomes = run_both(probe("nonblocking", {host_, "9"}));
  EXPECT_EQ(outcomes.direct.output, "connect EINPROGRESS\nSO_ERROR ECONNREFUSED\n");
  EXPECT_THAT(outcomes.redirected.output,
              testing::AnyOf("connect EINPROGRESS\nSO_ERROR 0\nread ECONNRESET\n",
                             "connect EINPROGRESS\nSO_ERROR ECONNRESET\n"));
}

TEST_F(Deviations, d01_port_checks_succeed_early) {
  // What wait-for-it does.
  const Outcomes bash = run_both({{"bash", "-c", "exec 3<>/dev/tcp/" + host_ + "/9"}});
  EXPECT_EQ(bash.direct.exit_status, 1);
  EXPECT_EQ(bash.redirected.exit_status, 0);
  // nc does not block: it depends on how soon it looks.
  const Outcomes netcat = run_both({{"nc", "-z", host_, "9"}});
  EXPECT_EQ(netcat.direct.exit_status, 1);
  EXPECT_THAT(netcat.redirected.exit_status, testing::AnyOf(0, 1));
  // A port that is open looks the same.
  expect_both({{"nc", "-z", "-v", "-n", host_, "7208"}},
              fmt::format("Connection to {} 7208 port [tcp/*] succeeded!\n", host_));
}

TEST_F(Deviations, d03_timeouts_show_on_read_instead_of_connect) {
  ST_ASSERT_OK(lab_->node().ip("route add blackhole 10.250.0.0/16"));
  expect(probe("read", {"10.250.0.1", "80", "1"}), "connect timeout\n",
         "connect ok\nread timeout\nagain timeout\n");
  expect(probe("latency", {"10.250.0.1", "80"}), "connect timeout\nwithin 0.2 s False\n",
         "connect ok\nwithin 0.2 s True\n");
  // The kernel's own patience, made short: SYNs after 0 and 1 s, the end after 3 s.
  for (const Pod* pod : {web_, plain_}) {
    ST_ASSERT_OK(pod->netns.write_sysctl("ipv4/tcp_syn_retries", "1"));
  }
  expect(probe("read", {"10.250.0.1", "80"}), "connect ETIMEDOUT\n",
         "connect ok\nread ECONNRESET\nagain b''\n");
  for (const Pod* pod : {web_, plain_}) {
    ST_ASSERT_OK(pod->netns.write_sysctl("ipv4/tcp_syn_retries", "6"));
  }
  ST_ASSERT_OK(lab_->node().ip("route del blackhole 10.250.0.0/16"));
}

TEST_F(Deviations, d04_the_next_address_of_a_name_may_not_be_tried) {
  serve_echo({"http:8085"});  // IPv4 and IPv6
  // The first address refuses, the second one would answer.
  const std::vector<std::string> curl = {
      "curl",
      "-sS",
      "--max-time",
      "20",
      "--resolve",
      fmt::format("dual.example:8085:{},{}", lab_->node_v6(), host_),
      "http://dual.example:8085/"};
  const Outcomes outcomes = run_both({curl});
  EXPECT_EQ(outcomes.direct.exit_status, 0) << outcomes.direct.output;
  EXPECT_EQ(outcomes.direct.standard_output, "ok");
  // 56: curl took the first address for connected. 0: it looked after the reset had come.
  EXPECT_THAT(outcomes.redirected.exit_status, testing::AnyOf(56, 0)) << outcomes.redirected.output;
}

TEST_F(Deviations, d05_the_server_sees_another_port) {
  const std::string peers = [&] {
    std::string lines;
    for (int i = 0; i < 4; ++i) {
      lines += fmt::format("peer ('{}', 7204)\n", host_);
    }
    return lines;
  }();
  expect(probe("names", {host_}),
         peers + "server sees my address {True}\nserver sees my port True\n",
         peers + "server sees my address {True}\nserver sees my port False\n");
}

TEST_F(Deviations, d06_a_bound_second_address_is_not_used) {
  ST_ASSERT_OK(web_->netns.ip("addr add 10.244.0.100/24 dev eth0"));
  ST_ASSERT_OK(plain_->netns.ip("addr add 10.244.0.101/24 dev eth0"));
  const std::string script = fmt::format(
      "a=$(ip -4 -o addr show dev eth0 | sed -n 's/.*inet \\(10.244.0.10[01]\\).*/\\1/p'); "
      "python3 {} bound {} $a | sed s/$a/bound/",
      client_file("probe.py"), host_);
  expect({{"sh", "-c", script}}, "name bound\nserver sees bound\n",
         fmt::format("name bound\nserver sees {}\n", web_->v4));
  ST_ASSERT_OK(web_->netns.ip("addr del 10.244.0.100/24 dev eth0"));
  ST_ASSERT_OK(plain_->netns.ip("addr del 10.244.0.101/24 dev eth0"));
}

// No deviation: two sockets on one port would meet at one listener, so they go direct.
TEST_F(Deviations, sockets_on_a_shared_port_are_left_direct) {
  for (const Pod* pod : {plain_, web_}) {
    EXPECT_EQ(run_alone(*pod, probe("one_port_twice", {host_})), "first ok\nothers ['ok']\n");
  }
}

TEST_F(Deviations, d08_socket_tables_show_the_listener) {
  expect(probe("tables", {host_}), "proc destination\nss destination\ngetpeername True\n",
         "proc listener\nss listener\ngetpeername True\n");
}

TEST_F(Deviations, d09_path_properties_are_those_of_loopback) {
  expect(probe("path", {host_}), "mss is ethernet's True\nmtu is ethernet's True\n",
         "mss is ethernet's False\nmtu is ethernet's False\n");
}

TEST_F(Deviations, d11_the_pods_loopback_has_the_engines_listeners) {
  // Connections to them are local, so nothing is redirected: not run_both().
  const Client ports = probe("listener_ports", {host_});
  EXPECT_EQ(run_alone(*plain_, ports),
            "some are open False\nbind 127.0.0.1 ['ok']\nbind 0.0.0.0 ['ok']\nread []\n");
  EXPECT_EQ(run_alone(*web_, ports),
            "some are open True\nbind 127.0.0.1 ['EADDRINUSE']\nbind 0.0.0.0 ['EADDRINUSE']\n"
            "read ['ECONNRESET']\n");
}

TEST_F(Deviations, d12_urgent_data_arrives_in_line) {
  expect(probe("urgent", {host_}), "b'one  two. urgent !'\n", "b'one ! two. urgent none'\n");
}

std::string Deviations::run_cut(const Pod& pod, const Client& program,
                                const std::function<void()>& cut) {
  auto client = Process::start({.arguments = program.arguments,
                                .netns_path = pod.netns.path(),
                                .cgroup_path = cgroup_->path()});
  if (!client) {
    return client.error().message;
  }
  EXPECT_TRUE((*client)->wait_for_output("connected", kClientPatience));
  cut();
  EXPECT_TRUE((*client)->write("cut\n"));
  EXPECT_TRUE((*client)->wait(kClientPatience));
  EXPECT_TRUE((*client)->wait_for_end_of_output());
  return (*client)->output();
}

std::string Deviations::run_without_answers(const Pod& pod, const Client& program) {
  const std::string route = fmt::format("blackhole {}/32", pod.v4);
  std::string output =
      run_cut(pod, program, [&] { EXPECT_TRUE(server_->netns.ip("route add " + route)); });
  EXPECT_TRUE(server_->netns.ip("route del " + route));
  return output;
}

TEST_F(Deviations, d13_acknowledged_and_alive_mean_the_engine) {
  const Client cut = probe("cut", {host_, "7208"});
  EXPECT_EQ(run_without_answers(*plain_, cut), "connected\nacknowledged False\nread ETIMEDOUT\n");
  EXPECT_EQ(run_without_answers(*web_, cut), "connected\nacknowledged True\nread timeout\n");
}

TEST_F(Deviations, d14_more_bytes_are_on_their_way) {
  serve_echo({"silent:7005"});
  const Outcomes outcomes = run_both(probe("fill", {host_, "7005"}));
  const auto sent = [](const CommandResult& result) {
    return std::stoull(result.standard_output.substr(std::string("sent ").size()));
  };
  ASSERT_THAT(outcomes.direct.output, testing::StartsWith("sent "));
  ASSERT_THAT(outcomes.redirected.output, testing::StartsWith("sent "));
  EXPECT_GT(sent(outcomes.redirected), sent(outcomes.direct));
  EXPECT_LT(sent(outcomes.redirected), sent(outcomes.direct) + 64'000'000);
}

TEST_F(Deviations, d15_tcp_md5_does_not_pass) {
  expect(probe("md5", {host_}), "connect ok\nread True\n", "connect ok\nread timeout\n");
}

TEST_F(Deviations, d16_rules_by_process_do_not_see_the_servers_leg) {
  const auto in_both = [](const std::string& action) {
    for (const Pod* pod : {plain_, web_}) {
      iptables(*pod, action +
                         " OUTPUT -o eth0 -p tcp -m owner --uid-owner 4711 -j REJECT "
                         "--reject-with tcp-reset");
    }
  };
  in_both("-A");
  expect(probe("as_user", {"4711", host_, "7203"}), "connect ECONNREFUSED\n",
         "connect ok\nread b'0'\nagain b''\n");
  in_both("-D");
}

TEST_F(Deviations, d30_the_endpoint_of_a_service_is_the_engines_choice) {
  const auto names = [](const std::string& address) {
    std::string lines;
    for (int i = 0; i < 4; ++i) {
      lines += fmt::format("peer ('{}', 7204)\n", address);
    }
    return lines + "server sees my address {True}\nserver sees my port False\n";
  };
  // One endpoint refuses, and without an engine the address leads there.
  ST_ASSERT_OK(lab_->node().ip("addr add 10.96.0.88/32 dev lo"));
  ASSERT_NO_FATAL_FAILURE(
      put_service("two", "10.96.0.88", {{.addresses = {lab_->node_v4()}}, {.addresses = {host_}}}));
  const Outcomes outcomes = run_both(probe("names", {"10.96.0.88"}));
  EXPECT_THAT(outcomes.direct.output, testing::HasSubstr("ConnectionRefusedError"));
  EXPECT_EQ(outcomes.redirected.output, names("10.96.0.88"));
  // A pod that is its own endpoint sees itself as the client.
  serve_in(*web_, {"python3", client_file("probe_server.py")}, "ready");
  ASSERT_NO_FATAL_FAILURE(put_service("self", "10.96.0.89", {{.addresses = {web_->v4}}}));
  EXPECT_EQ(run_alone(*web_, probe("names", {"10.96.0.89"})), names("10.96.0.89"));
}

TEST_F(Deviations, d31_error_queues_are_about_the_connection_to_the_engine) {
  const auto rule = [](const std::string& action) {
    iptables(*server_, action +
                           " INPUT -p tcp --dport 7209 -j REJECT "
                           "--reject-with icmp-host-unreachable");
  };
  for (const Pod* pod : {plain_, web_}) {
    EXPECT_EQ(run_cut(*pod, probe("icmp", {host_, "7209"}), [&] { rule("-A"); }),
              fmt::format("connected\nread {}\n", pod == plain_ ? "EHOSTUNREACH" : "timeout"));
    rule("-D");
    EXPECT_EQ(run_without_answers(*pod, probe("zerocopy", {host_, "7208"})),
              fmt::format("connected\ncompleted {}\n", pod == plain_ ? "False" : "True"));
  }
}

TEST_F(Deviations, same_reset_in_the_middle_of_a_stream) {
  expect_both(probe("reset", {host_}), "got 1000\nread ECONNRESET\nagain b''\nwrite EPIPE\n");
  expect_both(probe("reset", {server_->v6}), "got 1000\nread ECONNRESET\nagain b''\nwrite EPIPE\n");
}

TEST_F(Deviations, same_clean_end) {
  expect_both(probe("eof", {host_}), "read b''\nagain b''\n");
  expect_both(probe("eof", {server_->v6}), "read b''\nagain b''\n");
}

TEST_F(Deviations, same_end_as_the_server_sees_it) {
  expect_both(probe("client_ends", {host_}),
              "b'go'\nclose b'EOF'\nb'go'\nreset b'errno 104'\nunread b'errno 104'\n");
}

TEST_F(Deviations, same_silence) {
  serve_echo({"silent:7005"});
  expect_both(probe("read", {host_, "7005", "0.5"}), "connect ok\nread timeout\nagain timeout\n");
}

TEST_F(Deviations, d33_a_pod_with_more_addresses_shows_one_of_a_family) {
  const auto with_networks = [](const char* verb) {
    int host = 1;
    for (const Pod* pod : {server_, web_, plain_}) {
      ST_ASSERT_OK(pod->netns.ip(fmt::format("addr {} 10.246.0.{}/24 dev eth0", verb, host++)));
    }
  };
  with_networks("add");
  const auto says = [] {
    const auto doctor = sidetrack_->ctl({"doctor"});
    return doctor ? doctor->output : doctor.error().message;
  };
  const std::string hint = "shop/web has more addresses than one of a family (10.246.0.2)";
  // Addresses are listed again after half a minute where no route has changed.
  EXPECT_TRUE(eventually(milliseconds(60'000), [&] {
    return says().find(hint) != std::string::npos;
  })) << says();
  expect(probe("leaving", {"10.246.0.1"}), "the server sees my name True\n",
         "the server sees my name False\n");
  // What does not leave from there has its right name.
  expect_both(probe("leaving", {host_}), "the server sees my name True\n");
  with_networks("del");
}

}  // namespace
}  // namespace sidetrack::lab
