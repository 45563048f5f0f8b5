// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cni_test_agent.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <chrono>

#include "tests/lab/wait.h"

namespace sidetrack::cni {

void RecordingHandler::add(Attachment attachment, std::function<void(Result<void>)> done) {
  added.push_back(std::move(attachment));
  if (holds) {
    pending.push_back(std::move(done));
  } else {
    done(outcome);
  }
}

Result<void> RecordingHandler::check(const Claim& claim) {
  claims.push_back(claim);
  return outcome;
}

ScriptedPlugin::ScriptedPlugin(const std::string& path)
    : socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
      << path;
}

void ScriptedPlugin::send(const wire::cni::Message& message, std::vector<UniqueFd> fds) {
  const auto body = wire::cni::encode(message);
  ASSERT_TRUE(body) << body.error().message;
  ASSERT_TRUE(writer_.push(*body, std::move(fds)));
  ASSERT_TRUE(writer_.flush(socket.get()));
}

void ScriptedPlugin::send_bytes(const std::string& bytes) {
  ASSERT_EQ(::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

void ScriptedPlugin::poll() {
  if (closed) {
    return;
  }
  const auto received = reader_.read(socket.get());
  if (!received) {
    closed = true;
    return;
  }
  closed = received->closed;
  for (const wire::Frame& frame : received->frames) {
    const auto message = wire::cni::decode(frame.body);
    ASSERT_TRUE(message) << message.error().message;
    ASSERT_FALSE(answer) << "a second answer";
    answer = *message;
  }
}

CniServerTest::CniServerTest() {
  auto made = lab::TempDir::create("cni");
  EXPECT_TRUE(made) << made.error().message;
  folder.emplace(std::move(*made));
  path = folder->file("cni.sock");
}

void CniServerTest::start() {
  server = std::make_unique<Server>(
      context, handler, [this](const Served& one) { served.push_back(one); }, timings);
  ST_ASSERT_OK(server->listen(path));
}

ScriptedPlugin& CniServerTest::connect() {
  plugins.push_back(std::make_unique<ScriptedPlugin>(path));
  return *plugins.back();
}

void CniServerTest::until(const char* what, const std::function<bool()>& condition) {
  const auto deadline = lab::Clock::now() + lab::kPatience;
  while (!condition()) {
    ASSERT_LT(lab::Clock::now(), deadline) << "waited in vain: " << what;
    context.restart();
    context.run_for(std::chrono::milliseconds(2));
    for (const auto& plugin : plugins) {
      plugin->poll();
    }
  }
}

void CniServerTest::send_add(ScriptedPlugin& plugin, const std::string& container_id) {
  std::vector<UniqueFd> fds;
  fds.emplace_back(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  plugin.send(wire::cni::Add{.attachment = {container_id, "eth0"},
                             .pod_namespace = "shop",
                             .pod_name = "web-0",
                             .pod_uid = "6a1c",
                             .addresses = {"10.0.0.7"}},
              std::move(fds));
}

std::uint32_t CniServerTest::code(ScriptedPlugin& plugin) {
  until("an answer", [&plugin] { return plugin.answer.has_value(); });
  if (!plugin.answer) {
    return 999;
  }
  const auto* const failed = std::get_if<wire::cni::Failed>(&*plugin.answer);
  return failed == nullptr ? 0 : failed->code;
}

}  // namespace sidetrack::cni
