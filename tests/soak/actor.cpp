// SPDX-License-Identifier: Apache-2.0
#include "tests/soak/actor.h"

#include <chrono>

namespace sidetrack::soak {

namespace {

constexpr std::chrono::hours kUntilItEnds{24};

}  // namespace

Result<void> Actor::start() {
  auto started = lab::Process::start(spec_(starts_));
  if (!started) {
    return started.error();
  }
  ++starts_;
  process_ = std::move(*started);
  reader_ = std::jthread([this, process = process_.get()] {
    while (auto line = process->read_line(kUntilItEnds)) {
      const std::lock_guard lock(mutex_);
      lines_.push_back(std::move(*line));
    }
  });
  return {};
}

void Actor::kill() {
  if (!process_) {
    return;
  }
  process_->kill_hard();
  (void)process_->wait_for_end_of_output();
  said_ += process_->output();
  // The reader ends with the last line.
  if (reader_.joinable()) {
    reader_.join();
  }
  process_.reset();
}

std::string Actor::said() const {
  return process_ ? said_ + process_->output() : said_;
}

std::vector<std::string> Actor::take_lines() {
  const std::lock_guard lock(mutex_);
  return std::exchange(lines_, {});
}

}  // namespace sidetrack::soak
