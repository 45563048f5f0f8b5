// SPDX-License-Identifier: Apache-2.0
#include "agent/main/self_test_child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <boost/asio/buffer.hpp>

namespace sidetrack::agent {

namespace {

// The descriptor that the child finds its namespace at.
constexpr int kNetns = STDERR_FILENO + 1;

}  // namespace

SelfTestChild::~SelfTestChild() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    (void)selftest::clean_up(places_);
  }
}

Result<void> SelfTestChild::start(const selftest::Places& places, const UniqueFd& netns,
                                  Done done) {
  int pipes[2] = {-1, -1};
  if (pipe2(pipes, O_CLOEXEC) != 0) {
    return errno_error("make a pipe", errno);
  }
  UniqueFd reading(pipes[0]);
  const UniqueFd writing(pipes[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, writing.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, writing.get(), STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&actions, netns.get(), kNetns);
  // It may outlive an agent that is killed, whose successor needs the port.
  posix_spawn_file_actions_addclosefrom_np(&actions, kNetns + 1);
  std::string words[] = {"sidetrack-agent", "self-test",
                         "--output",        "json",
                         "--cgroup",        places.cgroup_dir,
                         "--pin-dir",       places.pin_dir,
                         "--netns",         fmt::format("/proc/self/fd/{}", kNetns)};
  char* arguments[std::size(words) + 1] = {};
  for (std::size_t i = 0; i < std::size(words); ++i) {
    arguments[i] = words[i].data();
  }
  const int error = posix_spawn(&pid_, program_.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    pid_ = 0;
    return errno_error("start the self-test", error);
  }
  places_ = places;
  done_ = std::move(done);
  text_.clear();
  boost::system::error_code ignored;
  output_.close(ignored);
  output_.assign(reading.release());
  read_more();
  return {};
}

void SelfTestChild::read_more() {
  output_.async_read_some(boost::asio::buffer(buffer_),
                          [this](const boost::system::error_code& error, std::size_t size) {
                            text_.append(buffer_.data(), size);
                            if (error == boost::asio::error::operation_aborted) {
                              return;
                            }
                            if (error) {
                              done_(finish());
                            } else {
                              read_more();
                            }
                          });
}

Result<selftest::Report> SelfTestChild::finish() {
  int status = 0;
  waitpid(std::exchange(pid_, 0), &status, 0);
  auto report = selftest::from_json(text_);
  if (report) {
    return report;
  }
  // Its words, then: it could not begin.
  const std::string words = text_.substr(0, text_.find('\n'));
  return make_error(ErrorCode::kUnsupported,
                    words.empty() ? fmt::format("it ended with status {}", status) : words);
}

}  // namespace sidetrack::agent
