// SPDX-License-Identifier: Apache-2.0
// A program of the soak that is killed and started again: its lines go into an inbox that its owner
// empties. Thread rule: one owner; start() makes a thread that only reads lines.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/lab/process.h"

namespace sidetrack::soak {

class Actor {
 public:
  // `spec` is asked for at each start: how often it was started before.
  using MakeSpec = std::function<lab::ProcessSpec(std::uint64_t)>;
  Actor(std::string name, MakeSpec spec) : name_(std::move(name)), spec_(std::move(spec)) {}
  Actor(const Actor&) = delete;
  Actor& operator=(const Actor&) = delete;
  ~Actor() { kill(); }

  Result<void> start();
  // kill -9; what it said before can still be taken.
  void kill();
  [[nodiscard]] bool is_up() const { return process_ != nullptr; }
  [[nodiscard]] lab::Process& process() { return *process_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  // All that it ever said, for failures.
  [[nodiscard]] std::string said() const;
  // All lines of its stdout since the last call, also those of earlier starts.
  std::vector<std::string> take_lines();

 private:
  std::string name_;
  MakeSpec spec_;
  std::uint64_t starts_ = 0;
  std::string said_;
  std::unique_ptr<lab::Process> process_;
  std::mutex mutex_;
  std::vector<std::string> lines_;
  std::jthread reader_;
};

}  // namespace sidetrack::soak
