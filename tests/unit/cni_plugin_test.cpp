// SPDX-License-Identifier: Apache-2.0
// The built plugin against the agent's own server.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/cni_agent_thread.h"
#include "tests/unit/cni_plugin_fixture.h"

namespace sidetrack::cni {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// Numbers, escapes, order, spaces and keys that nobody knows.
constexpr const char* kOddResult =
    "{ \"zeta\": 1e3,\t\"cniVersion\": \"1.1.0\", \"big\": 9223372036854775808, \"f\": 1.0,\r\n"
    "  \"ips\": [{\"address\": \"10.1.0.5/24\", \"interface\": 0, \"x\": -0.00},"
    " {\"address\":\"fd00:0:0::5/64\"}, {\"address\":\"nonsense\"}],\n"
    "  \"interfaces\": [{\"name\": \"eth0\", \"mtu\": 1450, \"socketPath\": \"\\/a\\u00e9\"}],"
    " \"a\": {\"type\": \"sidetrack-cni\", \"cniVersion\": 7} }";

// What the details of an error name: where the runtime says more, and what to do in the conflist.
constexpr const char* kLogOfRuntime = "(`journalctl -u containerd` or `-u crio`), `crictl info`";
constexpr const char* kOtherVersion =
    "change cniVersion in the conflist, or take sidetrack-cni out of it";
constexpr const char* kAskDoctor = "run `sidetrackctl doctor`";
constexpr const char* kOrder = "put it last in the list of plugins";
constexpr const char* kOwnEntry =
    "restart the agent of this node: it installs the plugin of its "
    "build and writes the entry of sidetrack-cni anew";

void expect_refused(const Ran& ran, int code, const char* advice) {
  EXPECT_EQ(ran.exit_status, 1);
  EXPECT_EQ(ran.code(), code) << ran.output;
  EXPECT_NE(ran.said("msg"), "") << ran.output;
  EXPECT_THAT(ran.said("details"), HasSubstr(advice)) << ran.output;
}

class CniPlugin : public CniPluginTest {
 protected:
  CniPlugin() : agent(socket) {}
  AgentThread agent;
};

TEST_F(CniPlugin, add_tells_the_agent_and_prints_the_result_byte_for_byte) {
  for (const char* one : {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}) {
    version = one;
    previous = kOddResult;
    const Ran ran = run("ADD");
    EXPECT_EQ(ran.exit_status, 0) << ran.all;
    EXPECT_EQ(ran.output, kOddResult);
    EXPECT_EQ(ran.all, ran.output) << "nothing on stderr";
  }
  agent.look([this] {
    ASSERT_EQ(agent.handler().added.size(), 5U);
    const Attachment& pod = agent.handler().added[0];
    EXPECT_EQ(pod.container_id, "c0ffee");
    EXPECT_EQ(pod.ifname, "eth0");
    EXPECT_EQ(pod.pod_namespace + "/" + pod.pod_name + " " + pod.pod_uid, "shop/web-0 6a1c");
    EXPECT_EQ(pod.addresses, (std::vector<std::string>{"10.1.0.5", "fd00::5"}));
    struct stat ours {};
    struct stat got {};
    EXPECT_EQ(::stat("/proc/self/ns/net", &ours), 0);
    EXPECT_EQ(::fstat(pod.netns.get(), &got), 0);
    EXPECT_EQ(got.st_ino, ours.st_ino);
  });
}

TEST_F(CniPlugin, a_result_without_version_gets_the_one_of_the_request) {
  version = "0.4.0";
  previous = "{ \"ips\": [] }";
  EXPECT_EQ(run("ADD").output, "{\"cniVersion\":\"0.4.0\", \"ips\": [] }");
  previous = "{}";
  EXPECT_EQ(run("ADD").output, "{\"cniVersion\":\"0.4.0\"}");
}

TEST_F(CniPlugin, what_is_no_pod_passes_through_unseen) {
  previous = kOddResult;
  for (const char* args : {"", "IgnoreUnknown=1", "K8S_POD_NAME=web-0", "K8S_POD_NAMESPACE=a b"}) {
    variables["CNI_ARGS"] = args;
    const Ran ran = run("ADD");
    EXPECT_EQ(ran.exit_status, 0) << ran.all;
    EXPECT_EQ(ran.output, kOddResult);
    EXPECT_EQ(run("CHECK").output, "");
  }
  agent.look([this] {
    EXPECT_TRUE(agent.handler().added.empty());
    EXPECT_TRUE(agent.handler().claims.empty());
  });
}

TEST_F(CniPlugin, del_check_gc_and_status_say_nothing_when_fine) {
  keys = ", \"statusChecksAgent\": true";
  EXPECT_EQ(run("DEL").all, "");
  EXPECT_EQ(run("CHECK").all, "");
  EXPECT_EQ(run("STATUS").all, "");
  keys += ", \"cni.dev/valid-attachments\": [{\"containerID\": \"a-1\", \"ifname\": \"net1\"}]";
  EXPECT_EQ(run("GC").all, "");
  agent.look([this] {
    const AttachmentId pod{.container_id = "c0ffee", .ifname = "eth0"};
    EXPECT_EQ(agent.handler().removed, std::vector<AttachmentId>{pod});
    ASSERT_EQ(agent.handler().claims.size(), 1U);
    EXPECT_EQ(agent.handler().claims[0].pod_name, "web-0");
    EXPECT_EQ(agent.handler().kept, (std::vector<std::set<AttachmentId>>{{{"a-1", "net1"}}}));
  });
}

TEST_F(CniPlugin, gc_without_a_list_forgets_nobody) {
  EXPECT_EQ(run("GC").exit_status, 0);
  keys = ", \"cni.dev/valid-attachments\": null";
  EXPECT_EQ(run("GC").exit_status, 0);
  keys = ", \"cni.dev/valid-attachments\": [{\"containerID\": \"a\"}]";
  EXPECT_EQ(run("GC").code(), 7);
  agent.look([this] { EXPECT_TRUE(agent.handler().kept.empty()); });
  keys = ", \"cni.dev/valid-attachments\": []";
  EXPECT_EQ(run("GC").exit_status, 0);
  agent.look([this] { EXPECT_EQ(agent.handler().kept.size(), 1U); });
}

TEST_F(CniPlugin, version_needs_no_agent_and_echoes) {
  const Ran ran = run_with("VERSION", R"({"cniVersion": "0.2.0"})");
  EXPECT_EQ(ran.exit_status, 0);
  EXPECT_EQ(nlohmann::json::parse(ran.output),
            nlohmann::json::parse(R"({"cniVersion": "0.2.0", "supportedVersions":
                                  ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]})"));
}

TEST_F(CniPlugin, an_agent_that_cannot_enrol_lets_the_pod_start_or_not) {
  agent.look([this] { agent.handler().outcome = make_error(ErrorCode::kFull, "map is full"); });
  keys = ", \"logFile\": \"" + folder->file("log") + "\"";
  previous = kOddResult;
  const Ran open = run("ADD");
  EXPECT_EQ(open.exit_status, 0);
  EXPECT_EQ(open.output, kOddResult);
  EXPECT_NE(read("log").find("Z pod shop/web-0 starts before it is enrolled: map is full\n"),
            std::string::npos)
      << read("log");

  write("enrolled", "bank\nshop\n");
  keys +=
      ", \"onAgentDown\": \"deny\", \"enrolledNamespaces\": \"" + folder->file("enrolled") + "\"";
  const Ran denied = run("ADD");
  EXPECT_EQ(denied.exit_status, 1);
  EXPECT_EQ(denied.code(), 100);
  EXPECT_NE(denied.said("msg").find("shop/web-0"), std::string::npos);
  EXPECT_NE(denied.said("msg").find("map is full"), std::string::npos);
  EXPECT_NE(denied.said("details").find(kAskDoctor), std::string::npos);
  EXPECT_EQ(denied.said("cniVersion"), "1.1.0");

  expect_refused(run("CHECK"), 100, kAskDoctor);  // tells what the agent says
  keys = ", \"statusChecksAgent\": true";
  expect_refused(run("STATUS"), 50, kAskDoctor);
}

TEST_F(CniPlugin, an_answer_that_comes_too_late_is_none) {
  agent.look([this] { agent.handler().holds = true; });
  keys = ", \"timeoutMs\": 200";
  const Ran ran = run("ADD");
  EXPECT_EQ(ran.exit_status, 0);
  EXPECT_GE(ran.took, milliseconds(200));
  EXPECT_LT(ran.took, milliseconds(200) + lab::scaled(milliseconds(800)));
  EXPECT_NE(ran.all.find("no answer in time"), std::string::npos) << ran.all;
}

// The 99th of 100.
milliseconds p99_of(std::vector<milliseconds> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() * 99 / 100 - 1];
}

// The whole of ADD as a runtime sees it, program start included, on a node that is full. Of three
// rounds the best counts: what else runs on the machine can only add. VERSION, which asks nobody,
// tells how busy it is.
TEST_F(CniPlugin, add_takes_at_most_50_ms_with_250_pods_on_the_node) {
  agent.look([this] {
    for (int i = 0; i < 250; ++i) {
      agent.handler().added.push_back({.container_id = "pod-" + std::to_string(i)});
    }
  });
  const milliseconds bound = lab::scaled(milliseconds(50));
  milliseconds best = milliseconds::max();
  milliseconds quietest = milliseconds::max();
  for (int round = 0; round < 3 && best > bound; ++round) {
    std::vector<milliseconds> adds;
    std::vector<milliseconds> versions;
    while (adds.size() < 100) {
      variables["CNI_CONTAINERID"] = "new-" + std::to_string(adds.size());
      versions.push_back(run("VERSION").took);
      const Ran ran = run("ADD");
      ASSERT_EQ(ran.exit_status, 0) << ran.all;
      adds.push_back(ran.took);
    }
    best = std::min(best, p99_of(adds));
    quietest = std::min(quietest, p99_of(versions));
    std::cout << "p99 of ADD " << p99_of(adds).count() << " ms, of VERSION "
              << p99_of(versions).count() << " ms\n";
  }
  if (best > bound && quietest > bound / 2) {
    GTEST_SKIP() << "this machine is too busy: to start a program takes " << quietest.count()
                 << " ms";
  }
  EXPECT_LE(best, bound);
}

// What a runtime sends is taken as it is, or refused with the spec's code and what to run.
TEST_F(CniPlugin, faults_of_the_runtime_have_the_specs_codes) {
  expect_refused(run_with("ADD", "{"), 6, kLogOfRuntime);
  expect_refused(run_with("ADD", ""), 6, kLogOfRuntime);
  expect_refused(run_with("ADD", "[]"), 6, kLogOfRuntime);
  // One byte too many: all of it is read.
  expect_refused(run_with("ADD", std::string((1U << 20U) + 1, ' ')), 5, kLogOfRuntime);
  expect_refused(run_with("", ""), 4, kLogOfRuntime);
  EXPECT_THAT(run_with("", "").all,
              HasSubstr("sidetrack-cni: failed with code 4: CNI_COMMAND is not set"));
  expect_refused(run_with("DANCE", ""), 4, kLogOfRuntime);
  version = "0.2.0";
  expect_refused(run("ADD"), 1, kOtherVersion);
  version = "1.2.0";
  expect_refused(run("ADD"), 1, kOtherVersion);
  version = "0.3.1";
  expect_refused(run("CHECK"), 1, kOtherVersion);
  version = "1.0.0";
  expect_refused(run("GC"), 1, kOtherVersion);
  expect_refused(run("STATUS"), 1, kOtherVersion);
  EXPECT_EQ(run("CHECK").code(), 0);
  previous = "";
  expect_refused(run("ADD"), 7, kOrder);
  previous = "[]";
  expect_refused(run("ADD"), 7, kOrder);
  previous = "{}";
  version = "1.1.0";
  keys = ", \"cni.dev/valid-attachments\": 7";
  expect_refused(run("GC"), 7, kLogOfRuntime);
  keys = "";
  variables["CNI_NETNS"] = "/proc/self/ns/mnt";
  expect_refused(run("ADD"), 8, kLogOfRuntime);
  variables["CNI_NETNS"] = "/proc/self/status";
  expect_refused(run("ADD"), 8, kLogOfRuntime);
  variables["CNI_NETNS"] = folder->file("none");
  expect_refused(run("ADD"), 8, kLogOfRuntime);
  variables["CNI_CONTAINERID"] = "-x";
  expect_refused(run("ADD"), 4, kLogOfRuntime);
  expect_refused(run("CHECK"), 4, kLogOfRuntime);
  variables["CNI_CONTAINERID"] = "x";
  variables["CNI_IFNAME"] = "sixteen-letters.";
  expect_refused(run("ADD"), 4, kLogOfRuntime);
  agent.look([this] { EXPECT_TRUE(agent.handler().added.empty()); });
}

TEST_F(CniPlugin, a_wrong_key_of_ours_is_named) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"timeoutMs", "10"},          {"timeoutMs", "1e3"},       {"timeoutMs", "\"200\""},
      {"onAgentDown", "\"maybe\""}, {"socket", "\"cni.sock\""}, {"logFile", "7"},
      {"statusChecksAgent", "1"},   {"denyForSeconds", "-1"},   {"denyForSeconds", "31536001"},
      {"denyForSeconds", "\"1h\""}, {"denyForSeconds", "1.5"}};
  for (const auto& [key, value] : wrong) {
    keys = ", \"" + key + "\": " + value;
    const Ran ran = run("ADD");
    expect_refused(ran, 7, kOwnEntry);
    EXPECT_THAT(ran.said("msg"), HasSubstr("in the conflist, " + key + " has to be "));
    EXPECT_TRUE(ran.said("msg").ends_with(", not " + value)) << ran.output;
  }
  keys = ", \"logFile\": [\n" + std::string(200, '7') + "]";
  EXPECT_TRUE(run("ADD").said("msg").ends_with(", not [ " + std::string(78, '7') + "..."));
}

TEST_F(CniPlugin, a_misspelt_key_of_ours_is_told_and_no_error) {
  const std::vector<std::pair<std::string, std::string>> misspelt = {
      {"onAgentDwn", "onAgentDown"},
      {"on-agent-down", "onAgentDown"},
      {"logfile", "logFile"},
      {"statusCheckAgent", "statusChecksAgent"},
      {"timeout", "timeoutMs"},
      {"enrolledNamespace", "enrolledNamespaces"},
      {"denyForSecond", "denyForSeconds"}};
  for (const auto& [written, meant] : misspelt) {
    keys = ", \"" + written + "\": \"deny\"";
    const Ran ran = run("ADD");
    EXPECT_EQ(ran.exit_status, 0) << ran.all;
    EXPECT_EQ(ran.output, R"({"cniVersion":"1.1.0"})");
    EXPECT_EQ(ran.noted(), "sidetrack-cni: ADD: in the conflist, " + written + " is not known (" +
                               meant + " is)\n");
    EXPECT_EQ(run("DEL").all, "");
  }
}

// Those of the specification, and what is nobody's business.
TEST_F(CniPlugin, keys_that_are_not_ours_are_let_be) {
  keys =
      R"(, "runtimeConfig": {}, "args": {}, "capabilities": {"io.kubernetes.cri.pod-annotations": true},)"
      R"( "ipMasq": false, "ipam": {}, "dns": {}, "disableCheck": false, "disableGC": false,)"
      R"( "cni.dev/attachments": [], "cniVersions": ["1.1.0"], "_comment": "x", "mtu": 1, "log": 1)";
  EXPECT_EQ(run("ADD").all, R"({"cniVersion":"1.1.0"})");
}

}  // namespace
}  // namespace sidetrack::cni
