// SPDX-License-Identifier: Apache-2.0
// Worker: one thread with one epoll loop. Accepts at the listeners of all pods, together with the
// other workers, and forwards its share of the connections. Public functions may be called from any
// thread: they post, the loop does the work.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/counters.h"
#include "engine/forwarder.h"
#include "engine/netns_seat.h"
#include "engine/original_destination.h"
#include "engine/pod.h"
#include "engine/routes.h"
#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engine {

enum class Cut : std::uint8_t { kNo, kYes };

struct WorkerSettings {
  unsigned index = 0;
  std::size_t buffer_bytes = 256 * 1024;
  const OriginalDestination* original_destination = nullptr;
  const Routes* routes = nullptr;
  Links* links = nullptr;
};

class Worker {
 public:
  explicit Worker(WorkerSettings settings);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Starts the thread. `peers`: all workers, this one among them; they must outlive it.
  [[nodiscard]] Result<void> start(std::span<const std::unique_ptr<Worker>> peers);
  // Ends the thread; connections are cut when the worker is destroyed.
  void stop();

  // Accepts at the pod's listeners from now on, instead of at those of an earlier Pod of the same
  // netns.
  void add_pod(std::shared_ptr<const Pod> pod);
  // Lets the pod's listeners go. Cut::kYes: its connections are reset, also those of earlier Pods
  // of the netns.
  void remove_pod(std::uint64_t netns_cookie, Cut cut);

  [[nodiscard]] const Counters& counters() const { return counters_; }

 private:
  struct AddPod {
    std::shared_ptr<const Pod> pod;
  };
  struct RemovePod {
    std::uint64_t netns_cookie;
    Cut cut;
  };
  struct Adopt {  // a connection that another worker has accepted
    UniqueFd client;
    std::shared_ptr<Netns> netns;
    SocketAddress destination;
    bool v4;
  };
  using Command = std::variant<AddPod, RemovePod, Adopt>;
  struct Watched {
    const Listener* listener;
    WorkerPod* pod;
  };

  void post(Command command);
  void run();
  void turn(std::span<const epoll_event> events);
  void run_commands();
  void run_command(AddPod& command);
  void run_command(const RemovePod& command);
  void run_command(Adopt& command);
  void retire(std::unique_ptr<WorkerPod> pod);
  void leave(const Netns& netns);
  void sweep();
  // True: there may be more.
  bool accept_some(std::uint64_t listener_id);
  void accepted(UniqueFd client, const Watched& at);
  [[nodiscard]] Worker& least_loaded();
  [[nodiscard]] bool watch(const Listener& listener) const;
  void pause(const Watched& at);
  void resume(std::int64_t now_ns);

  WorkerSettings settings_;
  std::span<const std::unique_ptr<Worker>> peers_;
  Counters counters_;
  UniqueFd epoll_;
  UniqueFd wake_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::vector<Command> commands_;  // guarded by mutex_

  // Of the thread.
  NetnsSeat seat_;
  std::unique_ptr<Forwarder> forwarder_;
  std::unordered_map<std::uint64_t, Watched> listeners_;                // by Listener::id
  std::unordered_map<std::uint64_t, std::unique_ptr<WorkerPod>> pods_;  // by netns cookie
  std::vector<std::unique_ptr<WorkerPod>>
      leaving_;                        // without listeners, until their connections are done
  std::vector<std::uint64_t> paused_;  // listener ids
  std::int64_t resume_ns_ = 0;
  std::thread thread_;
};

}  // namespace sidetrack::engine
