// SPDX-License-Identifier: Apache-2.0
// Where desired state comes from. A source owns no policy: it delivers whole, consistent object
// sets. All calls and callbacks run on the agent's one thread (the io_context's).
#pragma once

#include <functional>
#include <vector>

#include "agent/kube/model.h"

namespace sidetrack::kube {

// One consistent state of the world. `problems` are those of reading (a file that does not parse
// keeps its last good objects).
struct Snapshot {
  ObjectSet objects;
  std::vector<Problem> problems;
  // Everything there is was read, without errors. False: objects may be missing or be older ones.
  bool complete = true;
  // In which objects it differs from the one delivered before; the first: from none at all.
  ObjectKeys changes{};
};

class Source {
 public:
  virtual ~Source() = default;
  // Called after every change, and once after start() when the first complete state is known.
  using Listener = std::function<void(const Snapshot&)>;
  virtual void start(Listener listener) = 0;
  // Reads everything again (SIGHUP).
  virtual void refresh() = 0;
  virtual void stop() = 0;
};

}  // namespace sidetrack::kube
