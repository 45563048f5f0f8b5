// SPDX-License-Identifier: Apache-2.0
// The agent's CNI server on a thread of its own, for tests that run the plugin and wait for it.
// `look` runs code on that thread: all access to the handler goes through it.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "agent/cni/cni_server.h"
#include "tests/unit/cni_test_agent.h"

namespace sidetrack::cni {

class AgentThread {
 public:
  explicit AgentThread(const std::string& path) : work_(context_.get_executor()) {
    thread_ = std::jthread([this] { context_.run(); });
    look([&] {
      server_ = std::make_unique<Server>(context_, handler_, nullptr);
      const auto listening = server_->listen(path);
      EXPECT_TRUE(listening) << listening.error().message;
    });
  }
  AgentThread(const AgentThread&) = delete;
  AgentThread& operator=(const AgentThread&) = delete;
  ~AgentThread() {
    look([this] { server_.reset(); });
    work_.reset();
  }

  void look(const std::function<void()>& body) {
    const auto task = std::make_shared<std::packaged_task<void()>>(body);
    boost::asio::post(context_, [task] { (*task)(); });
    task->get_future().get();
  }
  // Only inside of look().
  RecordingHandler& handler() { return handler_; }

 private:
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  RecordingHandler handler_;
  std::unique_ptr<Server> server_;
  std::jthread thread_;  // last: joined before the rest goes
};

}  // namespace sidetrack::cni
