// SPDX-License-Identifier: Apache-2.0
// The built plugin where the agent is dead, hung or broken, and where the host has no libraries.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "sidetrack/unique_fd.h"
#include "tests/unit/cni_agent_thread.h"
#include "tests/unit/cni_plugin_fixture.h"

namespace sidetrack::cni {
namespace {

using std::chrono::milliseconds;

// Listens and never accepts: connections are made by the kernel, nobody answers.
UniqueFd deaf_listener(const std::string& path, int backlog) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(fd.get(), backlog), 0);
  return fd;
}

// Answers each connection with these bytes and closes it.
class CannedAgent {
 public:
  CannedAgent(const std::string& path, std::string answer)
      : listener_(deaf_listener(path, 16)), answer_(std::move(answer)) {
    thread_ = std::jthread([this] {
      for (;;) {
        const UniqueFd one(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!one.valid()) {
          return;
        }
        static_cast<void>(::send(one.get(), answer_.data(), answer_.size(), MSG_NOSIGNAL));
        ::shutdown(one.get(), SHUT_WR);
        char byte = 0;
        while (::read(one.get(), &byte, 1) > 0) {
        }
      }
    });
  }
  CannedAgent(const CannedAgent&) = delete;
  CannedAgent& operator=(const CannedAgent&) = delete;
  ~CannedAgent() { ::shutdown(listener_.get(), SHUT_RDWR); }

 private:
  UniqueFd listener_;
  std::string answer_;
  std::jthread thread_;
};

class CniPluginAlone : public CniPluginTest {
 protected:
  void deny(const std::string& enrolled) {
    write("enrolled", enrolled);
    keys =
        ", \"timeoutMs\": 100, \"onAgentDown\": \"deny\", \"ownNamespace\": \"mesh\", "
        "\"enrolledNamespaces\": \"" +
        folder->file("enrolled") + "\"";
  }
  // As from a runtime that goes on to hold its end of stdin once it has written `input`.
  Ran run_with_open_stdin(const std::string& command, const std::string& input) {
    std::vector<std::string> arguments = {"env", "-i", "CNI_COMMAND=" + command};
    for (const auto& [name, value] : variables) {
      arguments.push_back(name + "=" + value);
    }
    arguments.push_back(lab::built_program("sidetrack-cni"));
    const auto before = lab::Clock::now();
    const auto process = lab::Process::start({.arguments = arguments});
    if (!process || !(*process)->write(input)) {
      ADD_FAILURE() << "it was not started, or did not read";
      return {};
    }
    const auto status = (*process)->wait();
    EXPECT_TRUE(status) << status.error().message;
    const auto took = std::chrono::duration_cast<milliseconds>(lab::Clock::now() - before);
    EXPECT_TRUE((*process)->wait_for_end_of_output());
    return {.exit_status = status.value_or(-1),
            .output = (*process)->standard_output(),
            .all = (*process)->output(),
            .took = took};
  }
};

TEST_F(CniPluginAlone, a_dead_agent_lets_pods_start_and_that_is_recorded) {
  previous = R"({"cniVersion":"1.1.0","n":1e3})";
  keys = ", \"logFile\": \"" + folder->file("log") + "\"";
  const Ran ran = run("ADD");
  EXPECT_EQ(ran.exit_status, 0);
  EXPECT_EQ(ran.output, previous);
  const std::string log = read("log");
  EXPECT_NE(log.find("pod shop/web-0 starts before it is enrolled: the agent of this node does not "
                     "answer on " +
                     socket),
            std::string::npos)
      << log;
  EXPECT_EQ(log.substr(4, 1) + log.substr(19, 2), "-Z ") << log;
  EXPECT_EQ(run("CHECK").exit_status, 0);
  EXPECT_EQ(run("STATUS").exit_status, 0);
  keys = ", \"statusChecksAgent\": true";
  EXPECT_EQ(run("STATUS").code(), 50);
}

TEST_F(CniPluginAlone, a_log_that_cannot_be_written_is_told_on_stderr) {
  const auto told = [this](const std::string& file) {
    keys = ", \"logFile\": \"" + file + "\"";
    const Ran ran = run("ADD");
    EXPECT_EQ(ran.exit_status, 0) << ran.all;
    const std::string noted = ran.noted();
    EXPECT_NE(noted.find("web-0 starts before it is enrolled"), std::string::npos) << noted;
    return noted.substr(std::min(noted.find('\n') + 1, noted.size()));
  };
  const auto line = [](const std::string& file, const std::string& why) {
    return "sidetrack-cni: logFile " + file + ": " + why + "\n";
  };
  const std::string here = folder->path().string();
  EXPECT_EQ(told(here), line(here, "Is a directory"));
  EXPECT_EQ(told(here + "/no/log"), line(here + "/no/log", "No such file or directory"));
  EXPECT_EQ(told("/dev/null"), line("/dev/null", "not a regular file"));
}

// A node's disk is not filled by what is said again and again: docs/cni.md.
TEST_F(CniPluginAlone, a_log_of_10_mib_gets_no_more_lines) {
  constexpr std::uintmax_t kMostBytes = 10U << 20U;
  const std::string log = folder->file("log");
  const auto bytes_after_add = [&](std::uintmax_t before) {
    std::ofstream(log).close();
    std::filesystem::resize_file(log, before);
    const Ran ran = run("ADD");
    EXPECT_EQ(ran.exit_status, 0) << ran.all;
    const std::string noted = ran.noted();
    EXPECT_NE(noted.find("web-0 starts before it is enrolled"), std::string::npos) << noted;
    EXPECT_EQ(std::count(noted.begin(), noted.end(), '\n'), 1) << "all that is said: " << noted;
    return std::filesystem::file_size(log);
  };
  keys = ", \"logFile\": \"" + log + "\"";
  EXPECT_GT(bytes_after_add(kMostBytes - 1), kMostBytes) << "the last line is a whole one";
  EXPECT_EQ(bytes_after_add(kMostBytes), kMostBytes);
  EXPECT_EQ(bytes_after_add(kMostBytes + 100), kMostBytes + 100);
}

TEST_F(CniPluginAlone, deny_refuses_pods_of_enrolled_namespaces_only) {
  deny("bank\nshop\n");
  const Ran ran = run("ADD");
  EXPECT_EQ(ran.exit_status, 1);
  EXPECT_EQ(ran.code(), 11);
  EXPECT_NE(ran.said("details").find("kubectl -n mesh get pods"), std::string::npos);
  EXPECT_NE(ran.said("details").find("sidetrackctl doctor"), std::string::npos);
  EXPECT_EQ(run("CHECK").code(), 11);

  deny("shopping\nsho\n");
  EXPECT_EQ(run("ADD").exit_status, 0);
  deny("");
  EXPECT_EQ(run("ADD").exit_status, 0);
  std::filesystem::remove(folder->file("enrolled"));
  EXPECT_EQ(run("ADD").exit_status, 0) << "no list: nothing was ever enrolled";
}

TEST_F(CniPluginAlone, names_the_namespace_of_the_documentation_where_it_knows_none) {
  keys = ", \"statusChecksAgent\": true";
  EXPECT_NE(run("STATUS").said("details").find("kubectl -n sidetrack-system get pods"),
            std::string::npos);
}

TEST_F(CniPluginAlone, deny_never_refuses_system_pods_or_the_agents_own) {
  deny("kube-system\nmesh\n");
  for (const char* name : {"kube-system", "mesh"}) {
    variables["CNI_ARGS"] = std::string("K8S_POD_NAMESPACE=") + name + ";K8S_POD_NAME=x";
    EXPECT_EQ(run("ADD").exit_status, 0) << name;
  }
}

TEST_F(CniPluginAlone, del_never_fails_and_is_done_within_a_second) {
  const std::string good = configuration();
  const auto expect_fine = [this](const char* what, const Ran& ran) {
    EXPECT_EQ(ran.exit_status, 0) << what << ran.all;
    EXPECT_EQ(ran.output, "") << what;
    EXPECT_LT(ran.took, lab::scaled(milliseconds(1000))) << what;
  };
  expect_fine("dead agent", run("DEL"));
  expect_fine("no stdin", run_with("DEL", ""));
  expect_fine("broken stdin", run_with("DEL", "{\"socket\": 7"));
  expect_fine("broken key", run_with("DEL", R"({"timeoutMs": "x"})"));
  version = "9.9.9";
  expect_fine("unknown version", run("DEL"));
  variables["CNI_NETNS"] = "/nowhere";
  expect_fine("netns gone", run("DEL"));
  {
    const UniqueFd deaf = deaf_listener(socket, 16);
    expect_fine("hung agent", run_with("DEL", good));
  }
  std::filesystem::remove(socket);
  {
    // A full backlog: connect() itself waits.
    const UniqueFd full = deaf_listener(socket, 0);
    const UniqueFd first(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::connect(first.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
    expect_fine("full backlog", run_with("DEL", good));
    keys = ", \"timeoutMs\": 150";
    version = "1.1.0";
    variables["CNI_NETNS"] = "/proc/self/ns/net";
    const Ran add = run("ADD");
    EXPECT_EQ(add.exit_status, 0) << add.all;
    EXPECT_NE(add.all.find("does not accept connections in time"), std::string::npos) << add.all;
  }
  variables.clear();
  expect_fine("no environment", run_with("DEL", good));
}

TEST_F(CniPluginAlone, a_runtime_that_never_closes_stdin_does_not_hold_del) {
  const Ran ran = run_with_open_stdin("DEL", "");
  EXPECT_EQ(ran.exit_status, 0);
  EXPECT_LT(ran.took, lab::scaled(milliseconds(1000)));
}

// The time-box is named on stdin: until that is read, and that is to its end, it is not known.
TEST_F(CniPluginAlone, a_runtime_that_never_closes_stdin_holds_add_for_two_seconds) {
  keys = ", \"timeoutMs\": 100";
  for (const std::string& input : {std::string(), configuration()}) {
    const Ran ran = run_with_open_stdin("ADD", input);
    EXPECT_EQ(ran.exit_status, 1) << ran.all;
    EXPECT_EQ(ran.code(), 5) << ran.all;
    EXPECT_NE(ran.said("msg").find("stdin: no answer in time"), std::string::npos) << ran.all;
    EXPECT_GE(ran.took, milliseconds(2000));
    EXPECT_LT(ran.took, milliseconds(2000) + lab::scaled(milliseconds(1000)));
  }
}

TEST_F(CniPluginAlone, a_hung_agent_costs_the_time_box_and_no_more) {
  const UniqueFd deaf = deaf_listener(socket, 16);
  keys = ", \"timeoutMs\": 300";
  const Ran ran = run("ADD");
  EXPECT_EQ(ran.exit_status, 0);
  EXPECT_GE(ran.took, milliseconds(300));
  EXPECT_LT(ran.took, milliseconds(300) + lab::scaled(milliseconds(700)));
}

// The agent is restarted: no pod of an enrolled namespace slips through.
TEST_F(CniPluginAlone, a_restarting_agent_is_waited_for_where_it_matters) {
  write("enrolled", "shop\n");
  keys = ", \"enrolledNamespaces\": \"" + folder->file("enrolled") + "\"";
  std::optional<AgentThread> agent;
  std::jthread restart([&] {
    std::this_thread::sleep_for(milliseconds(300));
    agent.emplace(socket);
  });
  const Ran ran = run("ADD");
  restart.join();
  EXPECT_EQ(ran.all, R"({"cniVersion":"1.1.0"})") << "nothing to note";
  EXPECT_GE(ran.took, milliseconds(250));
  agent->look([&] { EXPECT_EQ(agent->handler().added.size(), 1U); });
  agent.reset();

  keys += ", \"timeoutMs\": 400";
  EXPECT_GE(run("ADD").took, milliseconds(340)) << "in vain";
  write("enrolled", "bank\n");
  EXPECT_LT(run("ADD").took, milliseconds(340)) << "nobody waits for other pods";
}

TEST_F(CniPluginAlone, an_agent_that_talks_nonsense_is_one_that_does_not_answer) {
  for (const std::string& answer :
       {std::string(), std::string("\0\0\0\2{}", 6), std::string("\xff\xff\xff\xff", 4),
        std::string("\0\0\0\x63torn", 8), std::string("HTTP/1.1 400 Bad Request\r\n\r\n")}) {
    const CannedAgent agent(socket, answer);
    const Ran ran = run("ADD");
    EXPECT_EQ(ran.exit_status, 0) << ran.all;
    EXPECT_NE(ran.all.find("starts before it is enrolled"), std::string::npos) << ran.all;
    EXPECT_EQ(run("DEL").exit_status, 0);
    std::filesystem::remove(socket);
  }
  const std::string of_another = R"({"type":"ok","version":9})";
  const CannedAgent agent(
      socket, std::string("\0\0\0", 3) + static_cast<char>(of_another.size()) + of_another);
  EXPECT_EQ(run("ADD").all, R"({"cniVersion":"1.1.0"})") << "ok is ok, whatever the build";
}

TEST_F(CniPluginAlone, needs_nothing_of_the_host_it_runs_on) {
#ifdef ST_NOT_STATIC
  GTEST_SKIP() << "sanitizers cannot be linked statically";
#endif
  if (::geteuid() != 0) {
    GTEST_SKIP() << "chroot needs root";
  }
  std::filesystem::copy(lab::built_program("sidetrack-cni"), folder->file("sidetrack-cni"));
  ST_ASSERT_VALUE(const auto linked,
                  lab::run_command({.arguments = {"ldd", folder->file("sidetrack-cni")}}));
  EXPECT_NE(linked.output.find("not a dynamic executable"), std::string::npos) << linked.output;
  ST_ASSERT_VALUE(
      const auto ran,
      lab::run_command({.arguments = {"env", "-i", "CNI_COMMAND=VERSION", "/usr/sbin/chroot",
                                      folder->path().string(), "/sidetrack-cni"},
                        .input = R"({"cniVersion": "1.0.0"})"}));
  EXPECT_EQ(ran.exit_status, 0) << ran.output;
  EXPECT_NE(ran.standard_output.find("supportedVersions"), std::string::npos);
  EXPECT_LT(std::filesystem::file_size(folder->file("sidetrack-cni")), 2U << 20U);
}

}  // namespace
}  // namespace sidetrack::cni
