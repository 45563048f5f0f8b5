// SPDX-License-Identifier: Apache-2.0
// Clients of other protocols, and of languages' own sockets: the same bytes with and without the
// redirect.
#include <fmt/format.h>
#include <unistd.h>

#include "tests/e2e/pair.h"
#include "tests/e2e/postgres.h"

namespace sidetrack::lab {
namespace {

class ProtocolClients : public Pair {
 protected:
  void serve_redis() {
    serve({"redis-server", "--port", "6379", "--bind", "*", "-::*", "--protected-mode", "no",
           "--save", "", "--dir", folder_->path().string()},
          "Ready to accept connections");
  }
  // For a shell: `command` towards $port, for each of `faults` ("reset:7211") its end and all that
  // it says on one line.
  static Client for_each_fault(const std::string& faults, const std::string& command) {
    return {{"sh", "-c",
             fmt::format("for each in {}; do port=${{each#*:}}; said=$({} 2>&1); "
                         "echo ${{each%:*}} $? $said; done",
                         faults, command)}};
  }
};

TEST_F(ProtocolClients, python_blocking_and_with_timeouts) {
  (void)make_file("data", 100'000);
  serve_echo({"echo:7000", "greeting:7004"});
  serve({"python3", "-m", "http.server", "--directory", folder_->path().string(), "--bind",
         "::", "8080"},
        "");
  wait_for_listener(8080);
  expect_same({{"python3", client_file("python_blocking.py"), server_->v4, server_->v6}});
  serve_probes();
  expect_same_complaints("python",
                         {{"python3", client_file("python_blocking.py"), "faults", server_->v4}});
}

TEST_F(ProtocolClients, python_asyncio) {
  serve_echo({"echo:7000", "silent:7005"});
  serve_probes();
  expect_same({{"python3", client_file("python_asyncio.py"), server_->v4, server_->v6}});
  expect_same_complaints("asyncio",
                         {{"python3", client_file("python_asyncio.py"), "faults", server_->v4}});
}

TEST_F(ProtocolClients, rust_std_net) {
  const std::string program = lab_program("st_rust_client");
  if (::access(program.c_str(), X_OK) != 0) {
    GTEST_SKIP() << "no Rust compiler was there when this was built";
  }
  serve_echo({"echo:7000"});
  expect_same({{program, server_->v4 + ":7000", fmt::format("[{}]:7000", server_->v6)}});
}

TEST_F(ProtocolClients, redis_commands_and_pipelines) {
  serve_redis();
  std::string commands = "FLUSHALL\n";
  for (int i = 0; i < 1000; ++i) {
    commands += fmt::format("SET key:{0} {0}-{1:x}\nGET key:{0}\nINCRBY sum {0}\n", i, i * 7919);
  }
  commands += "DBSIZE\nGET sum\nGET missing\nNOSUCHCOMMAND\n";
  expect_same({{"redis-cli", "-h", server_->v4}, commands});
  expect_same({{"redis-cli", "-h", server_->v6}, commands});
  // Mass insertion: one stream of commands, answers come meanwhile.
  std::string pipeline;
  for (int i = 0; i < 20'000; ++i) {
    pipeline += fmt::format("SET bulk:{} value-{}\r\n", i, i);
  }
  expect_same({{"redis-cli", "-h", server_->v4, "--pipe"}, pipeline});
  // Its report is times: only whether it succeeded can be compared.
  const std::string bench = fmt::format(
      "redis-benchmark -h {} -q -n 4000 -c 10 -P 16 -t set,get,lpush,lrange_100 >&2 && echo done",
      server_->v4);
  expect_same({{"sh", "-c", bench}});
  serve_probes();
  expect_same_complaints(
      "redis", for_each_fault("reset:7211 cut:7212 refused:9",
                              fmt::format("redis-cli -h {} -p $port GET key", server_->v4)));
}

TEST_F(ProtocolClients, iperf3_both_ways) {
  if (!installed("iperf3")) {
    GTEST_SKIP() << "iperf3 is not installed";
  }
  serve({"iperf3", "--server", "--forceflush"}, "Server listening on 5201");
  // How much has arrived when the sender's part ends is a matter of time: at least most of it.
  for (const char* way : {"", "--reverse"}) {
    const std::string script = fmt::format(
        "iperf3 --client {} --bytes 64M --json {} >{}; echo exit $?; "
        "jq -c '[.error, .end.sum_sent.bytes >= 67108864, .end.sum_received.bytes > 33554432]' {}",
        server_->v4, way, folder_->file("report"), folder_->file("report"));
    const Outcomes outcomes = run_both({{"sh", "-c", script}});
    EXPECT_EQ(outcomes.direct.output, "exit 0\n[null,true,true]\n") << way;
    EXPECT_EQ(outcomes.redirected.output, "exit 0\n[null,true,true]\n") << way;
    EXPECT_EQ(outcomes.redirects, 2U) << "one to control it";
  }
}

TEST_F(ProtocolClients, redis_pushes_what_is_published) {
  serve_redis();
  // A subscriber only listens: the bytes come unasked.
  // What it got is shown at the end: two programs that print at once print in any order. redis-cli
  // ends a line with the next message: four are sent to see three.
  const std::string script = fmt::format(
      "got=$(mktemp)\n"
      "redis-cli -h {0} --no-raw --csv SUBSCRIBE news | head -n 5 >\"$got\" & subscriber=$!\n"
      "until [ \"$(redis-cli -h {0} PUBSUB NUMSUB news | tail -n 1)\" = 1 ]; do :; done\n"
      "for i in 1 2 3 4; do redis-cli -h {0} PUBLISH news item-$i; done\n"
      "wait $subscriber\ncat \"$got\"\nrm \"$got\"\n"
      "redis-cli -h {0} CLIENT KILL TYPE pubsub >/dev/null",
      server_->v4);
  expect_same({{"sh", "-c", script}});
}

TEST_F(ProtocolClients, postgresql) {
  if (postgres_folder().empty() || !installed("psql")) {
    GTEST_SKIP() << "PostgreSQL is not installed";
  }
  ST_ASSERT_VALUE(const auto server, make_postgres(folder_->file("postgres"), kClientPatience));
  ASSERT_NO_FATAL_FAILURE(serve(server, kPostgresReady));
  const std::string rows = make_file("rows", 500'000);
  const std::string script =
      write_file("script.sql",
                 fmt::format("CREATE TEMP TABLE line (n serial, word text);\n"
                             "\\copy line(word) from '{}'\n"
                             "SELECT count(*), md5(string_agg(word, ',' ORDER BY n)) FROM line;\n"
                             "BEGIN; DELETE FROM line WHERE n % 2 = 0; ROLLBACK;\n"
                             "SELECT n, word FROM line ORDER BY n;\n"
                             "SELECT repeat('x', 5000000);\n"
                             "SELECT 1/0;\n"
                             "SET statement_timeout = 100; SELECT pg_sleep(20);\n"
                             "SELECT host(inet_server_addr()), inet_server_port();\n",
                             rows));
  for (const std::string& host : {server_->v4, server_->v6}) {
    expect_same(
        {{"psql", "-X", "-At", "-h", host, "-U", "tester", "-d", "postgres", "-f", script}});
  }
  const std::string bench = fmt::format(
      "pgbench -i -q -h {0} -U tester postgres >&2 && pgbench -h {0} -U tester -c 4 -t 50 postgres "
      "| grep 'actually processed'",
      server_->v4);
  expect_same({{"sh", "-c", bench}});
  serve_probes();
  expect_same_complaints(
      "psql",
      for_each_fault("reset:7221 cut:7222 silent:7208 refused:9",
                     fmt::format("LC_ALL=C psql -X -At -h {} -p $port -U tester -d "
                                 "'dbname=postgres connect_timeout=2' -c 'SELECT word FROM line'",
                                 server_->v4)));
}

TEST_F(ProtocolClients, smtp_where_the_server_speaks_first) {
  serve({"python3", client_file("smtp_server.py"), "2525"}, "ready");
  expect_same({{"python3", client_file("smtp_client.py"), "2525", server_->v4, server_->v6}});
  serve_probes();
  expect_same_complaints("smtp",
                         {{"python3", client_file("smtp_client.py"), "faults", server_->v4}});
}

TEST_F(ProtocolClients, netcat_half_closes) {
  serve_echo({"echo:7000", "hash:7001", "stream:7006:3000000"});
  const std::string data(300'000, 'n');
  for (const std::string& host : {server_->v4, server_->v6}) {
    expect_same({{"nc", "-N", host, "7000"}, data});
    expect_same({{"nc", "-N", host, "7001"}, data});
    expect_same({{"nc", "-d", host, "7006"}});
  }
}

TEST_F(ProtocolClients, datagrams_are_left_alone) {
  serve_echo({"udp:7053"});
  const std::vector<std::string> arguments = {"python3", client_file("datagrams.py"), "7053",
                                              server_->v4, server_->v6};
  for (const Pod* pod : {plain_, web_}) {
    const std::uint64_t before = redirected_count();
    ST_ASSERT_VALUE(const CommandResult result, run_command({.arguments = arguments,
                                                             .netns_path = pod->netns.path(),
                                                             .cgroup_path = cgroup_->path(),
                                                             .within = kClientPatience}));
    EXPECT_EQ(result.exit_status, 0) << pod->name << ": " << result.output;
    EXPECT_EQ(redirected_count(), before);
  }
}

}  // namespace
}  // namespace sidetrack::lab
