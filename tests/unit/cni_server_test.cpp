// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "tests/lab/wait.h"
#include "tests/unit/cni_test_agent.h"

namespace sidetrack::cni {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

const AttachmentId kPod{.container_id = "c0ffee", .ifname = "eth0"};

std::size_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

std::string message_of(const ScriptedPlugin& plugin) {
  return std::get<wire::cni::Failed>(*plugin.answer).message;
}

std::string details_of(const ScriptedPlugin& plugin) {
  return std::get<wire::cni::Failed>(*plugin.answer).details;
}

TEST_F(CniServerTest, add_hands_over_the_pod_and_its_netns) {
  start();
  ScriptedPlugin& plugin = connect();
  send_add(plugin);

  EXPECT_EQ(code(plugin), 0U);
  ASSERT_EQ(handler.added.size(), 1U);
  const Attachment& pod = handler.added[0];
  EXPECT_EQ(pod.container_id, "c0ffee");
  EXPECT_EQ(pod.ifname, "eth0");
  EXPECT_EQ(pod.pod_namespace + "/" + pod.pod_name + " " + pod.pod_uid, "shop/web-0 6a1c");
  EXPECT_EQ(pod.addresses, std::vector<std::string>{"10.0.0.7"});
  struct stat ours {};
  struct stat got {};
  ASSERT_EQ(::stat("/proc/self/ns/net", &ours), 0);
  ASSERT_EQ(::fstat(pod.netns.get(), &got), 0);
  EXPECT_EQ(got.st_ino, ours.st_ino);
  ASSERT_EQ(served.size(), 1U);
  EXPECT_EQ(served[0].command, "add");
  EXPECT_EQ(served[0].code, 0U);
  EXPECT_GT(served[0].seconds, 0);
}

TEST_F(CniServerTest, add_is_answered_when_the_handler_is_done_and_only_once) {
  handler.holds = true;
  start();
  ScriptedPlugin& plugin = connect();
  send_add(plugin);
  until("the pod", [&] { return !handler.pending.empty(); });
  EXPECT_FALSE(plugin.answer);
  handler.pending[0]({});
  EXPECT_EQ(code(plugin), 0U);
  handler.pending[0](make_error(ErrorCode::kIo, "too late"));
  plugin.socket.reset();
  until("the end", [&] { return server->connections() == 0; });
  EXPECT_EQ(served.size(), 1U);
}

TEST_F(CniServerTest, errors_carry_the_specs_codes_and_say_what_to_do) {
  start();
  handler.outcome = make_error(ErrorCode::kBusy, "no engine yet");
  ScriptedPlugin& busy = connect();
  send_add(busy);
  EXPECT_EQ(code(busy), wire::cni::kTryAgainLater);
  EXPECT_EQ(message_of(busy), "no engine yet");
  EXPECT_THAT(details_of(busy), HasSubstr("sidetrackctl doctor"));

  handler.outcome = make_error(ErrorCode::kFull, "map full");
  ScriptedPlugin& full = connect();
  send_add(full);
  EXPECT_EQ(code(full), wire::cni::kNotEnrolled);

  ScriptedPlugin& check = connect();
  check.send(wire::cni::Check{.attachment = kPod, .pod_namespace = "shop", .pod_name = "web-0"});
  EXPECT_EQ(code(check), wire::cni::kNotEnrolled);

  ScriptedPlugin& status = connect();
  status.send(wire::cni::Status{});
  EXPECT_EQ(code(status), wire::cni::kNotAvailable);
}

TEST_F(CniServerTest, del_check_gc_and_status_reach_the_handler) {
  start();
  ScriptedPlugin& del = connect();
  del.send(wire::cni::Del{.attachment = kPod});
  EXPECT_EQ(code(del), 0U);
  EXPECT_EQ(handler.removed, std::vector<AttachmentId>{kPod});

  ScriptedPlugin& check = connect();
  check.send(wire::cni::Check{
      .attachment = kPod, .pod_namespace = "shop", .pod_name = "web-0", .pod_uid = "6a1c"});
  EXPECT_EQ(code(check), 0U);
  ASSERT_EQ(handler.claims.size(), 1U);
  EXPECT_EQ(handler.claims[0].attachment, kPod);
  EXPECT_EQ(handler.claims[0].pod_name, "web-0");

  ScriptedPlugin& gc = connect();
  gc.send(wire::cni::Gc{.valid = {kPod, kPod, {"f00d", "net1"}}});
  EXPECT_EQ(code(gc), 0U);
  EXPECT_EQ(handler.kept, (std::vector<std::set<AttachmentId>>{{kPod, {"f00d", "net1"}}}));

  ScriptedPlugin& status = connect();
  status.send(wire::cni::Status{});
  EXPECT_EQ(code(status), 0U);
}

TEST_F(CniServerTest, refuses_what_is_not_the_protocol) {
  start();
  ScriptedPlugin& other_version = connect();
  other_version.send(wire::cni::Del{.version = 2, .attachment = kPod});
  EXPECT_EQ(code(other_version), wire::cni::kProtocolError);
  EXPECT_NE(message_of(other_version).find("version 2, this agent speaks version 1"),
            std::string::npos);

  ScriptedPlugin& no_netns = connect();
  no_netns.send(wire::cni::Add{.attachment = kPod, .pod_namespace = "shop", .pod_name = "web-0"});
  EXPECT_EQ(code(no_netns), wire::cni::kProtocolError);

  ScriptedPlugin& no_net = connect();
  std::vector<UniqueFd> fds;
  fds.emplace_back(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  no_net.send(wire::cni::Add{.attachment = kPod, .pod_namespace = "shop", .pod_name = "web-0"},
              std::move(fds));
  EXPECT_EQ(code(no_net), wire::cni::kProtocolError);
  EXPECT_NE(message_of(no_net).find("shop/web-0 is not a network namespace"), std::string::npos);

  ScriptedPlugin& agent = connect();
  agent.send(wire::cni::Ok{});
  EXPECT_EQ(code(agent), wire::cni::kProtocolError);

  ScriptedPlugin& garbage = connect();
  garbage.send_bytes(std::string("\0\0\0\4junk", 8));
  EXPECT_EQ(code(garbage), wire::cni::kProtocolError);
  for (const ScriptedPlugin* one : {&other_version, &garbage}) {
    EXPECT_THAT(details_of(*one), HasSubstr("restart the agent of this node"));
  }
  for (const ScriptedPlugin* one : {&no_netns, &no_net, &agent}) {
    EXPECT_THAT(details_of(*one), HasSubstr("run `sidetrackctl doctor`"));
  }

  ScriptedPlugin& oversized = connect();
  oversized.send_bytes("\xff\xff\xff\xff");
  until("it is cut", [&] { return oversized.closed; });
  EXPECT_TRUE(handler.added.empty());
  EXPECT_TRUE(handler.removed.empty());
}

TEST_F(CniServerTest, two_requests_end_the_connection) {
  handler.holds = true;
  start();
  ScriptedPlugin& plugin = connect();
  send_add(plugin);
  send_add(plugin);
  until("it is cut", [&] { return plugin.closed; });
  EXPECT_EQ(handler.added.size(), 1U);
}

TEST_F(CniServerTest, a_silent_plugin_and_a_pending_answer_have_deadlines) {
  timings = {.request = milliseconds(40), .answer = milliseconds(80)};
  handler.holds = true;
  start();
  ScriptedPlugin& silent = connect();
  ScriptedPlugin& half = connect();
  half.send_bytes(std::string("\0\0", 2));
  ScriptedPlugin& pending = connect();
  send_add(pending);
  until("all are cut", [&] { return silent.closed && half.closed && pending.closed; });
  until("all are forgotten", [&] { return server->connections() == 0; });
  ASSERT_EQ(handler.pending.size(), 1U);
  handler.pending[0]({});
  EXPECT_TRUE(served.empty());
}

TEST_F(CniServerTest, a_plugin_that_gave_up_leaves_nothing_behind) {
  handler.holds = true;
  start();
  const std::size_t files = open_files();
  ScriptedPlugin& plugin = connect();
  send_add(plugin);
  until("the pod", [&] { return !handler.pending.empty(); });
  plugin.socket.reset();
  plugin.closed = true;
  until("it is forgotten", [&] { return server->connections() == 0; });
  handler.pending[0]({});
  handler.added.clear();
  EXPECT_EQ(open_files(), files);
}

TEST_F(CniServerTest, more_plugins_than_sessions_are_all_served) {
  start();
  constexpr std::size_t kMany = 250;
  for (std::size_t i = 0; i < kMany; ++i) {
    connect();
  }
  until("as many as there may be", [&] { return server->connections() == 128; });
  for (std::size_t i = 0; i < kMany; ++i) {
    send_add(*plugins[i], "pod-" + std::to_string(i));
  }
  until("all answers", [&] {
    for (const auto& plugin : plugins) {
      if (plugin->answer) {
        plugin->socket.reset();
        plugin->closed = true;
      }
    }
    return served.size() == kMany;
  });
  std::set<std::string> names;
  for (const Attachment& one : handler.added) {
    names.insert(one.container_id);
  }
  EXPECT_EQ(names.size(), kMany);
}

TEST_F(CniServerTest, stop_ends_everything_and_removes_the_socket) {
  handler.holds = true;
  start();
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
  ScriptedPlugin& plugin = connect();
  send_add(plugin);
  until("the pod", [&] { return !handler.pending.empty(); });
  server->stop();
  handler.pending[0]({});
  server.reset();
  until("it is cut", [&] { return plugin.closed; });
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(plugin.answer);
}

TEST(Timings, last_longer_than_the_plugin_waits) {
  EXPECT_GT(timings_for(std::chrono::seconds(60)).answer, std::chrono::seconds(60));
  EXPECT_EQ(timings_for(std::chrono::seconds(2)).answer, Timings{}.answer);
}

}  // namespace
}  // namespace sidetrack::cni
