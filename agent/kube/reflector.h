// SPDX-License-Identifier: Apache-2.0
// Reflector: what to ask the API server next about one resource, and after which delay: list, then
// watch, as client-go does it. It decides; it sends nothing, stores no objects and reads no clock.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "agent/kube/backoff.h"
#include "agent/kube/resource.h"
#include "agent/kube/watch_event.h"

namespace sidetrack::kube {

struct ReflectorSettings {
  BackoffTimes backoff;
  std::chrono::seconds watch_min{300};  // the server is asked to end a watch after a random time
  std::chrono::seconds watch_max{600};
  // A watch whose initial events do not end by then is not one that can send them.
  std::chrono::milliseconds initial_limit{60'000};
  std::chrono::milliseconds short_watch{1000};
  // Server errors for so long on a watch: list instead.
  std::chrono::milliseconds error_limit{120'000};
  bool try_watch_list = true;
  bool never_empty = false;  // an empty list cannot be true (namespaces)
};

struct Step {
  ListWatchRequest request;
  std::chrono::milliseconds delay{0};
};

// How a request failed. Without a status code: no answer, or one that broke off.
struct Failure {
  ApiStatus status;
  bool garbage = false;  // what came is not what an API server sends
};

class Reflector {
 public:
  // `known_version`: of the objects that are known from the disk, "" for none. A list is never
  // older than it.
  Reflector(ReflectorSettings settings, Random random, std::string known_version,
            bool knows_objects);

  // The first request, or one to read everything again.
  [[nodiscard]] Step list();
  // What a successful page or the initial events of a watch (then `page` has no continue token)
  // said, with the number of items since the list began.
  [[nodiscard]] Step on_listed(TimePoint now, const ListMetadata& page, std::size_t items);
  // The events of a watch follow one another with this version.
  void on_version(const std::string& version);
  // A request failed; `now` is when.
  [[nodiscard]] Step on_failure(TimePoint now, const Failure& failure);
  // A watch ended as it should.
  [[nodiscard]] Step on_watch_end(TimePoint now, std::chrono::milliseconds lasted,
                                  std::size_t events);
  // The initial events did not end in time.
  [[nodiscard]] Step on_initial_timeout(TimePoint now);

  // Whether the last on_listed() was the end of a list: what was not in it is gone.
  [[nodiscard]] bool list_is_whole() const { return whole_; }
  [[nodiscard]] const std::string& version() const { return version_; }

 private:
  [[nodiscard]] Step list_step(std::chrono::milliseconds delay);
  [[nodiscard]] Step watch_step(std::chrono::milliseconds delay);
  [[nodiscard]] Step again(std::chrono::milliseconds delay);
  [[nodiscard]] Step on_gone(TimePoint now);
  [[nodiscard]] Step on_rejected(TimePoint now);
  [[nodiscard]] std::chrono::milliseconds wait(TimePoint now, const Failure& failure);
  [[nodiscard]] bool is_listing() const;
  [[nodiscard]] std::chrono::seconds watch_timeout();
  void note_success();

  ReflectorSettings settings_;
  Random random_;
  Backoff backoff_;
  std::string version_;
  ListWatchRequest current_;
  bool use_most_recent_ = false;  // `version_` cannot be served: list with ""
  bool confirming_ = false;       // an empty list is being asked for again
  bool knows_objects_ = false;
  bool whole_ = false;
  bool auth_retried_ = false;
  bool unpaged_ = false;  // a continue token expired: the rest of this list in one piece
  bool was_short_ = false;
  unsigned garbage_ = 0;
  unsigned initial_breaks_ = 0;
  TimePoint first_error_{};
  bool has_error_ = false;
};

}  // namespace sidetrack::kube
