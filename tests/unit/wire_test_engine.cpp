// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/wire_test_engine.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>

namespace sidetrack::engines {

std::size_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

PodSpec pod_spec(std::uint64_t netns_cookie, std::vector<std::uint16_t> reserved_ports) {
  return {.netns_cookie = netns_cookie,
          .namespace_name = "shop",
          .name = "web-" + std::to_string(netns_cookie),
          .reserved_ports = std::move(reserved_ports)};
}

policy::Routes services(std::uint8_t n, std::size_t endpoints) {
  policy::ServiceRoute route;
  route.front = {.address = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, n}}, .port = 80};
  route.service = "shop/web:http";
  for (std::size_t i = 0; i < endpoints; ++i) {
    const auto high = static_cast<std::uint8_t>(i / 256);
    const auto low = static_cast<std::uint8_t>(i % 256);
    route.endpoints.push_back(
        {.address = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, high, low}}, .port = 8080});
  }
  return {{"10.96.0." + std::to_string(n) + ":80",
           std::make_shared<const policy::ServiceRoute>(std::move(route))}};
}

ScriptedEngine::ScriptedEngine(const std::string& path)
    : socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
      << std::strerror(errno);
}

void ScriptedEngine::send(const wire::EngineMessage& message) {
  auto body = wire::encode(message);
  ASSERT_TRUE(body);
  ASSERT_TRUE(writer_.push(std::move(*body)));
  static_cast<void>(writer_.flush(socket.get()));
}

void ScriptedEngine::send_bytes(const std::string& bytes) {
  ASSERT_EQ(::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

void ScriptedEngine::hello(bool answer_pods) {
  answers_ = answer_pods;
  send(wire::Hello{.version = wire::kEngineProtocolVersion, .build = "test", .pid = 1});
}

void ScriptedEngine::poll() {
  if (!reads || closed || !socket.valid()) {
    return;
  }
  static_cast<void>(writer_.flush(socket.get()));
  auto frames = reader_.read(socket.get());
  closed = !frames || frames->closed;
  if (!frames) {
    return;
  }
  for (wire::Frame& frame : frames->frames) {
    const auto message = wire::decode(frame.body);
    ASSERT_TRUE(message) << message.error().message;
    EXPECT_EQ(frame.fds.size(), wire::descriptors_of(*message)) << frame.body;
    std::move(frame.fds.begin(), frame.fds.end(), std::back_inserter(fds));
    received.push_back(*message);
    const auto* const pod = std::get_if<wire::Pod>(&*message);
    if (pod != nullptr && answers_) {
      send(wire::Listening{.request_id = pod->request_id,
                           .netns_cookie = pod->netns_cookie,
                           .v4 = {{15900, pod->netns_cookie}},
                           .v6 = {}});
    }
  }
}

std::size_t ScriptedEngine::count(std::string_view kind) const {
  return static_cast<std::size_t>(
      std::count_if(received.begin(), received.end(),
                    [kind](const auto& message) { return wire::kind_of(message) == kind; }));
}

EngineServerTest::EngineServerTest() {
  std::string name = testing::TempDir() + "st-wire-XXXXXX";
  directory = ::mkdtemp(name.data());
  path = directory + "/engine.sock";
  callbacks.on_hello = [this](SessionId id, std::int64_t,
                              const std::string& version) -> Result<Welcome> {
    events.push_back("hello " + std::to_string(id) + " " + version);
    return Welcome{.slot = static_cast<std::uint16_t>(id),
                   .engines_fd = STDERR_FILENO,
                   .slots_fd = slots_fd,
                   .cgroup_id = 77,
                   .listener_port_low = 15900,
                   .listener_port_high = 15999,
                   .listeners_per_pod = 4};
  };
  callbacks.on_listening = [this](SessionId id, std::uint64_t cookie,
                                  const PodListeners& listeners) {
    events.push_back("listening " + std::to_string(id) + " " + std::to_string(cookie) +
                     " v4=" + std::to_string(listeners.v4.size()) +
                     " v6=" + std::to_string(listeners.v6.size()));
  };
  callbacks.on_failed = [this](SessionId id, std::uint64_t cookie, const std::string& reason) {
    events.push_back("failed " + std::to_string(id) + " " + std::to_string(cookie) + " " + reason);
  };
  callbacks.on_draining = [this](SessionId id) {
    events.push_back("draining " + std::to_string(id));
  };
  callbacks.on_link = [this](SessionId id, const Link& link) {
    events.push_back("link " + std::to_string(id) + " " + std::to_string(link.client_cookie) + " " +
                     std::to_string(link.server_cookie) + " " + std::to_string(link.index));
  };
  callbacks.on_lost = [this](SessionId id) { events.push_back("lost " + std::to_string(id)); };
  callbacks.open_netns = [](std::uint64_t) -> Result<UniqueFd> {
    return UniqueFd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  };
}

EngineServerTest::~EngineServerTest() {
  server.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
}

void EngineServerTest::start() {
  server = std::make_unique<EngineServer>(context, callbacks, timings);
  const auto listening = server->listen(path);
  ASSERT_TRUE(listening) << listening.error().message;
}

ScriptedEngine& EngineServerTest::connect() {
  engines.push_back(std::make_unique<ScriptedEngine>(path));
  return *engines.back();
}

void EngineServerTest::until(const char* what, const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "never happened: " << what;
    context.restart();
    context.run_one_for(std::chrono::milliseconds(5));
    for (const auto& engine : engines) {
      engine->poll();
    }
  }
}

void EngineServerTest::settle() {
  std::size_t handled = 1;
  for (int idle = 0; idle < 3; idle = handled == 0 ? idle + 1 : 0) {
    context.restart();
    handled = context.poll();
    for (const auto& engine : engines) {
      engine->poll();
    }
  }
}

bool EngineServerTest::happened(const std::string& event) const {
  return std::any_of(events.begin(), events.end(),
                     [&event](const std::string& one) { return one.starts_with(event); });
}

}  // namespace sidetrack::engines
