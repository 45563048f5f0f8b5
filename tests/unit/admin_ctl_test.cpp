// SPDX-License-Identifier: Apache-2.0
// The built sidetrackctl against a server of made-up views: what it prints and how it exits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <thread>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <nlohmann/json.hpp>

#include "agent/admin/api.h"
#include "agent/admin/json.h"
#include "agent/admin/server.h"
#include "tests/unit/admin_fake_views.h"

namespace sidetrack {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using test::Outcome;

Outcome run(const std::string& arguments) {
  return test::run_program(ST_CTL, arguments);
}

// What it writes to a terminal, with this NO_COLOR in its environment (nullptr: none).
std::string on_a_terminal(std::vector<std::string> arguments, const char* no_color) {
  arguments.insert(arguments.begin(), ST_CTL);
  std::vector<char*> words;
  for (std::string& argument : arguments) {
    words.push_back(argument.data());
  }
  words.push_back(nullptr);
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child == 0) {
    if (no_color == nullptr) {
      ::unsetenv("NO_COLOR");
    } else {
      ::setenv("NO_COLOR", no_color, 1);
    }
    ::execv(words.front(), words.data());
    ::_exit(127);
  }
  std::string output;
  std::array<char, 4096> buffer{};
  // EIO: nobody has the other end any more.
  for (ssize_t got = 0; (got = ::read(terminal, buffer.data(), buffer.size())) > 0;) {
    output.append(buffer.data(), static_cast<std::size_t>(got));
  }
  ::close(terminal);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << output;
  return output;
}

class Ctl : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = admin::AdminServer::listen(loop_.context, folder_.file("admin.sock"),
                                             admin::make_api(views_));
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    loop_.start();
  }
  void TearDown() override {
    loop_.stop();
    server_.reset();
  }
  [[nodiscard]] Outcome ctl(const std::string& arguments) const {
    return run(arguments + " --state-dir " + folder_.path());
  }

  test::FakeViews views_;
  test::TemporaryFolder folder_;
  test::LoopThread loop_;
  std::unique_ptr<admin::AdminServer> server_;
};

// An agent of another version: answers one request with what it does not know.
class OtherAgent {
 public:
  explicit OtherAgent(const std::string& path) : acceptor_(context_, Local::endpoint(path)) {}

  void answer_once(
      const std::string& status = "404 Not Found",
      const std::string& body = R"({"error": {"code": "not_found", "message": "no such path"}})") {
    Local::socket socket(context_);
    acceptor_.accept(socket);
    std::array<char, 4096> request{};
    socket.read_some(boost::asio::buffer(request));
    const std::string text =
        "HTTP/1.1 " + status +
        "\r\nServer: sidetrack-agent/9.8.7\r\nContent-Length: " + std::to_string(body.size()) +
        "\r\n\r\n" + body;
    boost::asio::write(socket, boost::asio::buffer(text));
  }

 private:
  using Local = boost::asio::local::stream_protocol;
  boost::asio::io_context context_;
  Local::acceptor acceptor_;
};

TEST(CtlVersions, an_agent_of_another_version_is_named_when_it_does_not_know_what_is_asked) {
  const test::TemporaryFolder folder;
  OtherAgent agent(folder.file("admin.sock"));
  std::jthread answering([&agent] { agent.answer_once(); });
  const auto outcome = run("counters --state-dir " + folder.path());
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("no such path (the agent is version 9.8.7, this "));
}

// What sidetrackctl makes of an answer of that agent.
Outcome told_by_another_version(const std::string& arguments, const std::string& body) {
  const test::TemporaryFolder folder;
  OtherAgent agent(folder.file("admin.sock"));
  std::jthread answering([&agent, &body] { agent.answer_once("200 OK", body); });
  return run(arguments + " --state-dir " + folder.path());
}

TEST(CtlVersions, an_answer_that_says_nothing_is_no_status) {
  for (const char* body : {"{}", "[]", "null", "{\"pods\": []}"}) {
    const auto outcome = told_by_another_version("status", body);
    EXPECT_EQ(outcome.code, 1) << body;
    EXPECT_THAT(outcome.output, HasSubstr("no \"agent\" in it (the agent is version 9.8.7, this "))
        << body;
  }
}

// One that knows more: keys and states that do not exist yet.
TEST(CtlVersions, the_status_of_a_newer_agent_is_printed) {
  nlohmann::json status = admin::to_json(test::FakeViews().status_view);
  status["colour"] = {{"of", {"the", "node"}}};
  status["agent"]["state"] = "hibernating";
  status["agent"]["mood"] = 7;
  status["engines"][0]["state"] = "warming";
  status["engines"][0]["queues"] = {1, 2};
  status["pods"]["asleep"] = 4;
  status["pods"]["drift_reasons"]["lost_in_thought"] = 3;
  status["programs"][0]["age"] = nullptr;
  status["problems"] = {{{"severity", "fatal"}, {"object", "Node/n1"}, {"reason", "too warm"}}};
  const auto outcome = told_by_another_version("status", status.dump());
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output, StartsWith("agent      hibernating  0.1.0  pid 42  up "));
  EXPECT_THAT(outcome.output, HasSubstr("engine     embedded warming  pid 43  beat 250ms ago"));
  EXPECT_THAT(outcome.output, HasSubstr("programs   1 of 1 attached"));
  EXPECT_THAT(outcome.output, HasSubstr("pods       wanted 2  enrolled 2  drift 0"));
  EXPECT_THAT(outcome.output, HasSubstr("drift: lost_in_thought 3\n"));
  EXPECT_THAT(outcome.output, HasSubstr("fatal Node/n1: too warm\n"));
}

TEST(CtlVersions, the_pods_of_a_newer_agent_are_printed) {
  nlohmann::json answer = admin::to_json(test::FakeViews().pod_views);
  answer["next_page"] = {{"token", "x"}};
  for (auto& pod : answer["pods"]) {
    pod["state"] = "half_enrolled";
    pod["mode"] = "mirror";
    pod["zone"] = {{"name", "b"}};
  }
  const auto outcome = told_by_another_version("pods", answer.dump());
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output, ContainsRegex("shop +web-0 +mirror +half_enrolled +15900-15901 .*\n"
                                            "bank +db-0 +mirror +half_enrolled +15900-15901 "));
}

TEST(CtlVersions, an_agent_is_asked_once_for_the_pods_of_a_namespace_without_any) {
  const auto outcome = told_by_another_version("pods -n nope", "{\"pods\": []}");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.output, "sidetrackctl: no pod of namespace nope is on this node\n");
}

// One that knows less: what was added later is not in its answers.
TEST(CtlVersions, the_status_of_an_older_agent_is_printed) {
  nlohmann::json status = admin::to_json(test::FakeViews().status_view);
  for (const char* later : {"kubernetes", "repairs", "fast_path", "fast_path_reason",
                            "fast_path_connections", "fast_path_refused"}) {
    ASSERT_EQ(status.erase(later), 1U) << later;
  }
  ASSERT_EQ(status["pods"].erase("drift_reasons"), 1U);
  const auto outcome = told_by_another_version("status", status.dump());
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output, StartsWith("agent      ready  0.1.0  pid 42  up "));
  EXPECT_THAT(outcome.output, HasSubstr("engine     embedded up  pid 43  beat 250ms ago"));
  EXPECT_THAT(outcome.output, HasSubstr("pods       wanted 2  enrolled 2  drift 0"));
  EXPECT_THAT(outcome.output, HasSubstr("problems   none\n"));
}

TEST(CtlVersions, the_pods_of_an_older_agent_are_printed) {
  nlohmann::json answer = admin::to_json(test::FakeViews().pod_views);
  for (auto& pod : answer["pods"]) {
    for (const char* later :
         {"captured_late_s", "addresses", "other_addresses", "engine_ports_v6", "fast_path",
          "fast_path_reason", "fast_path_connections", "fast_path_waiting", "reason_detail"}) {
      ASSERT_EQ(pod.erase(later), 1U) << later;
    }
  }
  const auto outcome = told_by_another_version("pods", answer.dump());
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output, ContainsRegex("shop +web-0 +redirect +enrolled +15900-15901 .*\n"
                                            "bank +db-0 +redirect +enrolled +15900-15901 "));
}

TEST_F(Ctl, an_error_of_the_same_version_does_not_speak_of_versions) {
  const auto outcome = ctl("policy shop/nope");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, testing::Not(HasSubstr("version")));
}

TEST_F(Ctl, status_is_printed_without_colour_to_a_pipe) {
  const auto outcome = ctl("status");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output, StartsWith("agent      ready"));
}

TEST_F(Ctl, colours_a_terminal_unless_it_is_told_not_to) {
  const std::string escape = "\x1b[";
  const std::vector<std::string> pods = {"pods", "--state-dir", folder_.path()};
  const std::vector<std::string> plain = {"pods", "--no-color", "--state-dir", folder_.path()};
  for (const char* unset : {static_cast<const char*>(nullptr), ""}) {
    EXPECT_THAT(on_a_terminal(pods, unset), HasSubstr(escape));
    EXPECT_THAT(on_a_terminal(plain, unset), Not(HasSubstr(escape)));
  }
  const std::string told = on_a_terminal(pods, "1");
  EXPECT_THAT(told, Not(HasSubstr(escape)));
  EXPECT_THAT(told, HasSubstr("web-0"));
}

TEST_F(Ctl, json_is_what_the_agent_says) {
  const auto outcome = ctl("pods -n bank -o json");
  EXPECT_EQ(outcome.code, 0);
  const auto answer = nlohmann::json::parse(outcome.output);
  EXPECT_EQ(answer["pods"].size(), 1U);
  EXPECT_EQ(answer["pods"][0]["pod"], "db-0");
}

TEST_F(Ctl, yaml_is_printed) {
  EXPECT_THAT(ctl("counters -o yaml").output, HasSubstr("excluded_port: 2\n"));
}

TEST_F(Ctl, policy_of_unknown_pod_is_exit_1) {
  EXPECT_EQ(ctl("policy shop/web-0").code, 0);
  const auto outcome = ctl("policy shop/nope");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("no pod shop/nope"));
}

TEST_F(Ctl, pods_of_unknown_namespace_are_exit_1) {
  const auto outcome = ctl("pods -n nope");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, StartsWith("sidetrackctl: no pod of namespace nope"));
  EXPECT_THAT(ctl("pods -n nope -o json").output, StartsWith("{\n  \"pods\": []\n}\n"));
  views_.pod_views.clear();
  EXPECT_EQ(ctl("pods").code, 0);
  EXPECT_EQ(ctl("pods").output, "no pods\n");
}

TEST_F(Ctl, flows_and_counters_of_a_namespace_without_pods_are_exit_1_as_pods_are) {
  views_.flow_views.clear();
  for (const char* command : {"flows", "counters"}) {
    const std::string words = command;
    const auto outcome = ctl(words + " -n nope");
    EXPECT_EQ(outcome.code, 1) << words;
    EXPECT_EQ(outcome.output, "sidetrackctl: no pod of namespace nope is on this node\n");
    EXPECT_THAT(ctl(words + " -n nope -o json").output, StartsWith("{\n  \"" + words + "\": []"));
    EXPECT_EQ(ctl(words + " -n bank").code, 0) << "it has a pod and nothing to show";
    EXPECT_EQ(ctl(words).code, 0) << words;
  }
  EXPECT_EQ(ctl("flows -n bank").output, "no flows\n");
  EXPECT_EQ(ctl("flows").output, "no flows\n");
}

TEST_F(Ctl, flows_of_pods_that_are_gone_are_shown) {
  views_.pod_views.clear();
  EXPECT_EQ(ctl("flows -n shop").code, 0);
  EXPECT_EQ(ctl("counters -n shop").code, 0);
}

TEST_F(Ctl, following_flows_of_a_namespace_without_pods_says_so_and_goes_on) {
  views_.flow_views.clear();
  const std::string said = folder_.file("said");
  const auto outcome =
      run("flows -f -n nope -o json --state-dir " + folder_.path() + " 2>" + said +
          " & pid=$!; while [ ! -s " + said +
          " ] && kill -0 $pid; do sleep 0.05; done; kill -INT $pid; wait $pid && cat " + said);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.output, "sidetrackctl: no pod of namespace nope is on this node\n");
}

TEST_F(Ctl, explain_takes_both_families) {
  EXPECT_THAT(ctl("explain shop/web-0 10.0.0.1:8500").output, HasSubstr("Port 8500 is excluded"));
  EXPECT_THAT(ctl("explain shop/web-0 '[fd00::1]:8500'").output,
              HasSubstr("shop/web-0 -> [fd00::1]:8500: direct"));
}

TEST_F(Ctl, explain_exits_1_when_the_kernel_disagrees) {
  views_.agrees = false;
  const auto outcome = ctl("explain shop/web-0 10.0.0.1:8500");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("The kernel holds another policy"));
}

TEST_F(Ctl, wrong_usage_is_exit_2) {
  EXPECT_EQ(ctl("explain shop/web-0 nowhere").code, 2);
  EXPECT_EQ(ctl("policy web-0").code, 2);
  EXPECT_EQ(ctl("status -o xml").code, 2);
  EXPECT_EQ(ctl("bypass maybe").code, 2);
  EXPECT_EQ(ctl("workloads lose shop/ReplicaSet/web-7f").code, 2);
  EXPECT_EQ(ctl("workloads forget").code, 2);
  EXPECT_EQ(ctl("").code, 2);
}

TEST_F(Ctl, workloads_are_listed_and_forgotten) {
  EXPECT_THAT(ctl("workloads").output, ContainsRegex("shop/ReplicaSet/web-7f +fp_fionread\n"));
  const auto unknown = ctl("workloads forget shop/ReplicaSet/web");
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.output, HasSubstr("workload shop/ReplicaSet/web is not kept"));
  const auto forgotten = ctl("workloads forget shop/ReplicaSet/web-7f -o json");
  EXPECT_EQ(forgotten.code, 0);
  EXPECT_EQ(nlohmann::json::parse(forgotten.output)["workloads"], nlohmann::json::array());
  EXPECT_EQ(ctl("workloads").output, "no workload is kept from the fast path\n");
}

TEST_F(Ctl, flows_are_listed) {
  const auto outcome = ctl("flows -n shop --since 5m");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output, HasSubstr("10.96.0.10:80"));
  EXPECT_GT(views_.last_flow_query.since, 0);
}

TEST_F(Ctl, following_flows_ends_cleanly_when_interrupted) {
  const auto outcome = run("flows -f -o json --state-dir " + folder_.path() +
                           " & pid=$!; sleep 1; kill -INT $pid; wait $pid");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(nlohmann::json::parse(outcome.output)["destination"], "10.96.0.10:80");
}

TEST_F(Ctl, bypass_without_pinned_state_says_so) {
  for (const char* word : {"", "on ", "off "}) {
    const auto outcome =
        ctl("bypass " + std::string(word) + "--pin-dir " + folder_.file("nothing"));
    EXPECT_EQ(outcome.code, 1);
    EXPECT_EQ(outcome.output,
              "sidetrackctl: bypass: there is no switch: nothing of Sidetrack is "
              "pinned at " +
                  folder_.file("nothing") +
                  ", so nothing is redirected from there (another folder: --pin-dir "
                  "DIR)\n");
  }
}

TEST_F(Ctl, bypass_where_other_things_are_pinned_says_what_is_missing) {
  std::filesystem::create_directories(folder_.file("pins/v0"));
  const auto outcome = ctl("bypass --pin-dir " + folder_.file("pins"));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("/st_bypass: No such file or directory"));
  EXPECT_THAT(outcome.output, Not(HasSubstr("nothing")));
}

TEST_F(Ctl, bypass_with_another_word_says_which_there_are) {
  EXPECT_THAT(ctl("bypass status").output,
              HasSubstr("bypass takes on, off or, to show it, nothing; not \"status\""));
}

TEST_F(Ctl, doctor_is_json_and_finds_the_missing_pins) {
  const auto outcome = ctl("doctor -o json --pin-dir " + folder_.file("nothing"));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_FALSE(nlohmann::json::parse(outcome.output)["healthy"]);
}

TEST(CtlAlone, unreachable_agent_is_exit_3_and_names_the_socket) {
  const auto outcome = run("status --state-dir /nonexistent");
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.output, HasSubstr("/nonexistent/admin.sock"));
  EXPECT_THAT(outcome.output, HasSubstr("--state-dir"));
}

TEST(CtlAlone, wrong_usage_is_exit_2_without_an_agent_too) {
  const auto refused = [](const std::string& arguments, const std::string& why) {
    const auto outcome = run(arguments + " --state-dir /nonexistent");
    EXPECT_EQ(outcome.code, 2) << arguments;
    EXPECT_THAT(outcome.output, StartsWith("sidetrackctl: " + why)) << arguments;
  };
  refused("explain a/b 1.2.3.4", R"("1.2.3.4": ADDRESS:PORT is meant)");
  refused("explain a/b host:80", R"("host:80": ADDRESS:PORT is meant)");
  refused("explain a/b 1.2.3.4:0", R"("1.2.3.4:0": the port must be 1 to 65535)");
  refused("explain a/b 1.2.3.4:70000", R"("1.2.3.4:70000": the port must be 1 to 65535)");
  refused("explain a/b fd00::1:80", R"("fd00::1:80": an IPv6 address needs brackets)");
  for (const std::string pod : {"a", "/b", "a/", "a/b/c", "'a/b c'"}) {
    refused("policy " + pod, "\"");
    refused("explain " + pod + " 1.2.3.4:80", "\"");
    EXPECT_THAT(run("policy " + pod).output, HasSubstr("\" is not NAMESPACE/POD; see "));
  }
  for (const std::string command : {"pods", "flows", "counters"}) {
    refused(command + " -n 'BAD NS'", "-n 'BAD NS': a namespace name is meant; see ");
    refused(command + " -n ''", "-n '': a namespace name is meant");
  }
  for (const std::string right : {"explain a/b 1.2.3.4:80", "policy a/web-0.x", "pods -n a_B.1"}) {
    EXPECT_EQ(run(right + " --state-dir /nonexistent").code, 3) << right;
  }
}

TEST(CtlAlone, no_folder_is_none) {
  for (const std::string command : {"status", "doctor", "flows"}) {
    const auto outcome = run(command + " --state-dir ''");
    EXPECT_EQ(outcome.code, 2) << command;
    EXPECT_THAT(outcome.output, StartsWith("sidetrackctl: --state-dir '': a folder is meant"));
  }
  EXPECT_THAT(run("bypass --pin-dir ''").output, HasSubstr("--pin-dir '': a folder is meant"));
}

TEST(CtlAlone, doctor_does_not_judge_hooks_that_it_cannot_look_at) {
  const test::TemporaryFolder folder;
  const std::string doctor =
      "doctor --state-dir " + folder.path() + " --pin-dir " + folder.file("nothing");
  Outcome blind;
  bool alone = false;
  std::jthread([&] {
    alone = ::unshare(CLONE_NEWNS) == 0;
    if (!alone) {
      return;
    }
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(std::system("umount --lazy --all --types cgroup2"), 0);
    blind = run(doctor);
  }).join();
  if (!alone) {
    GTEST_SKIP() << "no mount namespace of our own can be made here";
  }
  EXPECT_THAT(blind.output, HasSubstr("no cgroup2 file system is mounted"));
  EXPECT_THAT(blind.output, Not(HasSubstr("of Sidetrack is in the kernel")));
}

TEST(CtlAlone, help_and_version_need_no_agent) {
  EXPECT_EQ(run("--help").code, 0);
  EXPECT_EQ(run("flows --help").code, 0);
  EXPECT_THAT(run("--version").output, StartsWith("sidetrackctl "));
}

}  // namespace
}  // namespace sidetrack
