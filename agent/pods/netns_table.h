// SPDX-License-Identifier: Apache-2.0
// Which network namespace each pod of the node has: told by the CNI plugin, or found by the pod's
// processes and proven by its addresses. Holds a descriptor of each, so that it can be entered
// whatever becomes of the process; the descriptor goes when the plugin or the API says that the pod
// has gone, else it would keep the namespace. One thread; time is passed in.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/pods/processes.h"
#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::pods {

using Clock = std::chrono::steady_clock;

// A pod that the API says is on this node and should have a namespace of its own.
struct KnownPod {
  std::string uid;  // as in NodeProcesses
  std::vector<std::string> addresses;
  bool has_runtime_class = false;  // its runtime may be a sandbox's
};

struct NetnsPlace {
  std::string path;      // "/proc/self/fd/17"; empty: not known
  std::string problem;   // why not
  std::string sandbox;   // the runtime's, if that does not use the node's sockets
  bool has_run = false;  // something of it was seen in there: before, `sandbox` is not known
  std::string unseen;    // why a process of it cannot be looked at; empty: each can
  // As the plugin said, which is before the API does and at once after a new sandbox; else empty.
  std::vector<std::string> addresses;
  // Of the oldest process seen in it that is not the sandbox's own; nothing: none was yet.
  std::optional<Clock::time_point> running_since{};
};

class NetnsTable {
 public:
  struct System {
    std::function<Result<NodeProcesses>()> list_processes;
    std::function<Result<UniqueFd>(std::int64_t pid)> open_netns;
    std::function<Result<std::vector<std::string>>(int netns_fd)> list_addresses;
    ino_t node_netns = 0;
  };
  explicit NetnsTable(System system) : system_(std::move(system)) {}
  // That of this machine, seen from a process in the node's namespaces.
  [[nodiscard]] static Result<System> real_system();

  // ADD and DEL of the plugin: `container_id` is the sandbox's, "/" and the interface. The newest
  // sandbox of a pod counts. A DEL also ends what was found in that sandbox.
  void attach(const std::string& container_id, const std::string& uid, UniqueFd netns,
              Clock::time_point now, std::vector<std::string> addresses = {});
  // Returns the namespaces that are let go.
  std::vector<UniqueFd> detach(const std::string& container_id);
  // GC: sandboxes that the plugin told of and that are not among these have gone.
  void keep_only(const std::set<std::string>& container_ids);
  [[nodiscard]] bool has(const std::string& container_id) const;

  // Looks for those of `pods` whose namespace is not known and, now and then, whether the others
  // are still true. `pods` are all of the node: what is held of others goes, if the plugin has not
  // told of it just now. Returns whether any place() is another one. Cheap to call often.
  bool look(const std::vector<KnownPod>& pods, Clock::time_point now);
  [[nodiscard]] NetnsPlace place(const std::string& uid) const;

 private:
  struct Seat {
    UniqueFd netns;
    ino_t inode = 0;
    std::string container_id;          // empty: found by its processes
    std::set<std::string> found_in{};  // then: the containers that these were in
    std::vector<std::string> addresses;
    Clock::time_point since;
    bool has_run = false;
  };
  struct Entry {
    std::vector<Seat> seats;  // the last one counts
    std::string problem;
    std::string sandbox;
    std::string unseen;
    std::optional<Clock::time_point> running_since{};
    Clock::time_point missing_since;
  };

  [[nodiscard]] static bool is_of(const Seat& seat, const std::string& container_id);
  bool drop_strangers(const std::set<std::string>& uids, Clock::time_point now);
  [[nodiscard]] bool scan_is_due(const std::vector<KnownPod>& pods, Clock::time_point now);
  bool compare(const KnownPod& pod, const NodeProcesses& all, Clock::time_point now);
  static void note_start(Entry& entry, const std::vector<PodProcess>& processes);
  static bool note_run(Entry& entry, const std::vector<PodProcess>& processes);
  [[nodiscard]] static std::string sandbox_of_seats(const Entry& entry, const NodeProcesses& all);
  void find(const KnownPod& pod, Entry& entry, const std::vector<PodProcess>& processes,
            Clock::time_point now);
  [[nodiscard]] Result<Seat> prove(const KnownPod& pod, const PodProcess& process,
                                   Clock::time_point now) const;

  System system_;
  std::map<std::string, Entry> entries_;  // by uid
  Clock::time_point next_scan_{};
  Clock::time_point next_check_{};
};

}  // namespace sidetrack::pods
