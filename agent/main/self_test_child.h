// SPDX-License-Identifier: Apache-2.0
// The self-test as a process of its own beside a running agent: it enters namespaces and cgroups,
// and takes some seconds.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "agent/selftest/self_test.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::agent {

class SelfTestChild {
 public:
  using Done = std::function<void(const Result<selftest::Report>&)>;
  // `program`: that understands `self-test`; by default this one.
  explicit SelfTestChild(boost::asio::io_context& context, std::string program = "/proc/self/exe")
      : output_(context), program_(std::move(program)) {}
  // Ends it, if it runs.
  ~SelfTestChild();
  SelfTestChild(const SelfTestChild&) = delete;
  SelfTestChild& operator=(const SelfTestChild&) = delete;

  // Not while it runs. In the namespace `netns`, whatever places.netns says. `done` is called once,
  // from the context.
  [[nodiscard]] Result<void> start(const selftest::Places& places, const UniqueFd& netns,
                                   Done done);

 private:
  void read_more();
  [[nodiscard]] Result<selftest::Report> finish();

  boost::asio::posix::stream_descriptor output_;
  std::string program_;
  selftest::Places places_;
  Done done_;
  int pid_ = 0;
  std::string text_;
  std::array<char, 4096> buffer_{};
};

}  // namespace sidetrack::agent
