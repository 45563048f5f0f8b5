// SPDX-License-Identifier: Apache-2.0
// CacheSaver: when which resource's objects go to the disk, and their text, made in parts so that
// the thread is never held up for long. On the io_context's thread.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/steady_timer.hpp>

#include "agent/kube/object_cache.h"
#include "agent/kube/object_store.h"

namespace sidetrack::kube {

class CacheSaver : public std::enable_shared_from_this<CacheSaver> {
 public:
  // `store` and `cache` must live until stop().
  CacheSaver(boost::asio::io_context& io, const ObjectStore& store, ObjectCache& cache)
      : store_(store), cache_(cache), timer_(io) {}

  // The objects of `resource` are others than those on the disk.
  void mark(Resource resource);
  // Gives everything that is marked to the cache, now.
  void stop();

 private:
  void plan();
  void save_due();
  void begin(Resource resource);
  void go_on();
  void finish(Resource resource);

  const ObjectStore& store_;
  ObjectCache& cache_;
  boost::asio::steady_timer timer_;
  std::array<bool, kResourceCount> marked_{};
  std::array<bool, kResourceCount> saved_{};  // at least once
  std::array<std::chrono::steady_clock::time_point, kResourceCount> due_{};
  std::optional<Resource> now_;  // whose text is being made
  std::string after_;
  std::string text_;
  bool stopped_ = false;
};

}  // namespace sidetrack::kube
