// SPDX-License-Identifier: Apache-2.0
// The other end of the admin socket: one request, one answer, within a deadline. Blocking; one
// thread.
#pragma once

#include <chrono>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "sidetrack/result.h"

namespace sidetrack::ctl {

class Client {
 public:
  explicit Client(std::string socket_path,
                  std::chrono::milliseconds deadline = std::chrono::seconds(5))
      : socket_path_(std::move(socket_path)), deadline_(deadline) {}

  // The answer, an object that has `key`. kIo: the agent could not be reached, the message says
  // what to do; with error_number ETIMEDOUT it runs and does not answer. Otherwise the error that
  // the agent answered with.
  [[nodiscard]] Result<nlohmann::json> get(const std::string& target, const std::string& key) const;
  // The same for a request with a body.
  [[nodiscard]] Result<nlohmann::json> post(const std::string& target, const nlohmann::json& body,
                                            const std::string& key) const;
  [[nodiscard]] const std::string& socket_path() const { return socket_path_; }

 private:
  std::string socket_path_;
  std::chrono::milliseconds deadline_;
};

}  // namespace sidetrack::ctl
