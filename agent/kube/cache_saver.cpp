// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/cache_saver.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

namespace sidetrack::kube {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

// What decides on enrolment is small and written soon, the large rest less often.
constexpr milliseconds kSoon{1000};
constexpr milliseconds kLater{30'000};
constexpr std::size_t kAtOnce = 100;  // objects made into text before others get the thread

bool is_large(Resource resource) {
  return resource == Resource::kServices || resource == Resource::kEndpointSlices;
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

void CacheSaver::mark(Resource resource) {
  const std::size_t index = index_of(resource);
  if (!std::exchange(marked_[index], true)) {
    due_[index] = steady_clock::now() + (is_large(resource) && saved_[index] ? kLater : kSoon);
    plan();
  }
}

void CacheSaver::plan() {
  auto next = steady_clock::time_point::max();
  for (const Resource resource : kResources) {
    if (marked_[index_of(resource)]) {
      next = std::min(next, due_[index_of(resource)]);
    }
  }
  if (now_ || stopped_ || next == steady_clock::time_point::max()) {
    return;
  }
  timer_.expires_at(next);
  timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error && !self->stopped_) {
      self->save_due();
    }
  });
}

void CacheSaver::save_due() {
  const auto now = steady_clock::now();
  for (const Resource resource : kResources) {
    if (marked_[index_of(resource)] && due_[index_of(resource)] <= now) {
      begin(resource);
      now_ = resource;
      go_on();
      return;
    }
  }
  plan();
}

void CacheSaver::begin(Resource resource) {
  marked_[index_of(resource)] = false;
  saved_[index_of(resource)] = true;
  after_.clear();
  // Objects that change while the text is made are newer than this version: never older.
  text_ = cache_.head(resource, store_.version(resource), unix_time());
}

void CacheSaver::go_on() {
  if (store_.append_text(*now_, after_, kAtOnce, text_)) {
    boost::asio::post(timer_.get_executor(), [self = shared_from_this()] {
      if (!self->stopped_ && self->now_) {
        self->go_on();
      }
    });
    return;
  }
  finish(*std::exchange(now_, std::nullopt));
  save_due();
}

void CacheSaver::finish(Resource resource) {
  cache_.save(resource, std::exchange(text_, {}) + ObjectCache::kTail);
}

void CacheSaver::stop() {
  stopped_ = true;
  timer_.cancel();
  if (now_) {
    marked_[index_of(*now_)] = true;
  }
  for (const Resource resource : kResources) {
    if (marked_[index_of(resource)]) {
      begin(resource);
      store_.append_text(resource, after_, std::numeric_limits<std::size_t>::max(), text_);
      finish(resource);
    }
  }
}

}  // namespace sidetrack::kube
