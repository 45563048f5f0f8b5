// SPDX-License-Identifier: Apache-2.0
// For the tests of agent/cni: the server with a Handler that records, on one thread; `until` turns
// the loop until a condition holds, with a deadline. ScriptedPlugin is the other end of the socket,
// as this build's plugin or a broken one.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "agent/cni/cni_server.h"
#include "sidetrack/wire/framing.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::cni {

struct RecordingHandler final : Handler {
  void add(Attachment attachment, std::function<void(Result<void>)> done) override;
  void remove(const AttachmentId& attachment) override { removed.push_back(attachment); }
  Result<void> check(const Claim& claim) override;
  void keep_only(const std::set<AttachmentId>& valid) override { kept.push_back(valid); }
  Result<void> status() override { return outcome; }

  Result<void> outcome;
  bool holds = false;  // add() does not answer by itself
  std::vector<Attachment> added;
  std::vector<std::function<void(Result<void>)>> pending;
  std::vector<Claim> claims;
  std::vector<AttachmentId> removed;
  std::vector<std::set<AttachmentId>> kept;
};

class ScriptedPlugin {
 public:
  explicit ScriptedPlugin(const std::string& path);
  void send(const wire::cni::Message& message, std::vector<UniqueFd> fds = {});
  void send_bytes(const std::string& bytes);
  void poll();

  std::optional<wire::cni::Message> answer;
  bool closed = false;
  UniqueFd socket;

 private:
  wire::FrameReader reader_;
  wire::FrameWriter writer_;
};

class CniServerTest : public testing::Test {
 protected:
  CniServerTest();

  void start();
  ScriptedPlugin& connect();
  void until(const char* what, const std::function<bool()>& condition);
  // A request with a netns of this process as descriptor.
  void send_add(ScriptedPlugin& plugin, const std::string& container_id = "c0ffee");
  // The answer's code: 0 for `ok`.
  [[nodiscard]] std::uint32_t code(ScriptedPlugin& plugin);

  std::optional<lab::TempDir> folder;
  std::string path;
  boost::asio::io_context context;
  RecordingHandler handler;
  Timings timings;
  std::vector<Served> served;
  std::unique_ptr<Server> server;
  std::vector<std::unique_ptr<ScriptedPlugin>> plugins;
};

}  // namespace sidetrack::cni
