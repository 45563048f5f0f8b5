// SPDX-License-Identifier: Apache-2.0
// For the tests of agent/engines: a scripted engine on a real unix socket, and the server with
// recorded callbacks. Both run on one thread; `until` turns the loop until a condition holds, with
// a deadline.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "agent/engines/engine_server.h"
#include "sidetrack/wire/engine.h"
#include "sidetrack/wire/framing.h"

namespace sidetrack::engines {

[[nodiscard]] std::size_t open_files();
[[nodiscard]] PodSpec pod_spec(std::uint64_t netns_cookie,
                               std::vector<std::uint16_t> reserved_ports = {});
// Keyed as the service compiler does it, near enough: front 10.96.0.`n`:80,
// endpoints 10.0.x.y:8080.
[[nodiscard]] policy::Routes services(std::uint8_t n, std::size_t endpoints);

class ScriptedEngine {
 public:
  explicit ScriptedEngine(const std::string& path);
  void send(const wire::EngineMessage& message);
  void send_bytes(const std::string& bytes);
  // Hello, and from then on every pod is answered with listeners 15900 (IPv4) as it is received.
  void hello(bool answer_pods = true);
  void poll();

  [[nodiscard]] std::size_t count(std::string_view kind) const;
  template <typename T>
  [[nodiscard]] std::vector<T> all() const {
    std::vector<T> out;
    for (const auto& message : received) {
      if (const T* const one = std::get_if<T>(&message)) {
        out.push_back(*one);
      }
    }
    return out;
  }

  std::vector<wire::EngineMessage> received;
  std::vector<UniqueFd> fds;
  bool closed = false;
  bool reads = true;
  UniqueFd socket;

 private:
  bool answers_ = false;
  wire::FrameReader reader_;
  wire::FrameWriter writer_;
};

class EngineServerTest : public testing::Test {
 protected:
  EngineServerTest();
  ~EngineServerTest() override;

  ScriptedEngine& connect();
  void until(const char* what, const std::function<bool()>& condition);
  // Turns the loop until it has nothing ready: for "nothing more was sent".
  void settle();
  [[nodiscard]] bool happened(const std::string& event) const;

  std::string directory;
  std::string path;
  boost::asio::io_context context;
  std::vector<std::string> events;
  int slots_fd = -1;
  Callbacks callbacks;
  Timings timings;
  std::unique_ptr<EngineServer> server;
  std::vector<std::unique_ptr<ScriptedEngine>> engines;

  void start();
};

}  // namespace sidetrack::engines
