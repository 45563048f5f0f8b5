// SPDX-License-Identifier: Apache-2.0
// EchoServer: st_echo in a pod. Modes: the head of st_echo.cpp. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/lab/process.h"

namespace sidetrack::lab {

struct Place {
  std::string netns_path{};
  std::string cgroup_path{};
};

class EchoServer {
 public:
  // `listeners`: "echo:7000", "hash:0", "stream:0:1000000". Returns when all of them listen.
  static Result<std::unique_ptr<EchoServer>> start(const Place& place,
                                                   const std::vector<std::string>& listeners);

  // The port of the (last) listener of `mode`; 0 if there is none.
  [[nodiscard]] std::uint16_t port(const std::string& mode) const;
  [[nodiscard]] Process& process() { return *process_; }

 private:
  explicit EchoServer(std::unique_ptr<Process> process) : process_(std::move(process)) {}

  std::unique_ptr<Process> process_;
  std::map<std::string, std::uint16_t> ports_;
};

}  // namespace sidetrack::lab
