// SPDX-License-Identifier: Apache-2.0
// Views with made-up content, and a server of them on a thread of its own. For tests of the admin
// API and its clients.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include <boost/asio/io_context.hpp>

#include "agent/admin/views.h"

namespace sidetrack::test {

class FakeViews : public admin::Views {
 public:
  FakeViews();

  admin::StatusView status() override { return status_view; }
  std::vector<admin::PodView> pods(const std::string& namespace_name) override;
  Result<admin::PolicyView> policy(const std::string& namespace_name,
                                   const std::string& pod) override;
  Result<admin::ExplainView> explain(const std::string& namespace_name, const std::string& pod,
                                     const std::string& destination) override;
  admin::FlowPage flows(const admin::FlowQuery& query) override;
  std::vector<admin::CounterView> counters() override { return counter_views; }
  Result<void> set_bypass(bool on) override;
  std::vector<admin::WorkloadView> demoted_workloads() override { return workload_views; }
  Result<void> forget_workload(const std::string& workload) override;
  bool ready() override { return is_ready; }
  double last_policy_apply_s() override { return 0.01; }

  admin::StatusView status_view;
  std::vector<admin::PodView> pod_views;
  std::vector<admin::CounterView> counter_views;
  std::vector<admin::WorkloadView> workload_views;
  std::vector<admin::FlowView> flow_views;  // sequence = index + 1
  admin::FlowQuery last_flow_query;
  bool is_ready = true;
  bool agrees = true;
};

// A folder of its own, gone with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }
  [[nodiscard]] std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// Runs an io_context on a thread until destroyed; what `make` returns is built before and destroyed
// after, on no thread.
class LoopThread {
 public:
  LoopThread() = default;
  ~LoopThread() { stop(); }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  boost::asio::io_context context;
  void start() {
    thread_ = std::thread([this] { context.run(); });
  }
  void stop() {
    context.stop();
    if (thread_.joinable()) {
      thread_.join();
    }
  }

 private:
  std::thread thread_;
};

// Of a program that was run to its end.
struct Outcome {
  int code = -1;       // 128 + the signal that ended it
  std::string output;  // both streams
};

// `arguments` as in a shell.
[[nodiscard]] Outcome run_program(const std::string& program, const std::string& arguments);

// Sends the bytes to a unix socket and returns all that comes back until the other end closes or is
// silent for 3 s.
[[nodiscard]] std::string exchange_unix(const std::string& path, const std::string& bytes);
[[nodiscard]] std::string exchange_tcp(std::uint16_t port, const std::string& bytes);

}  // namespace sidetrack::test
