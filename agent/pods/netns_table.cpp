// SPDX-License-Identifier: Apache-2.0
#include "agent/pods/netns_table.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/pods/addresses.h"
#include "agent/pods/netns.h"

namespace sidetrack::pods {
namespace {

// The plugin may tell of a pod before the API does, and of one that the API never shows us.
constexpr std::chrono::seconds kStrangerPatience{60};
// A new sandbox has no processes for a while.
constexpr std::chrono::seconds kYoung{30};
constexpr std::chrono::milliseconds kFirstScan{250};
constexpr std::chrono::milliseconds kLastScan{10000};
constexpr std::chrono::milliseconds kCheck{10000};

Result<ino_t> inode_of(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    return errno_error("netns", errno);
  }
  return status.st_ino;
}

std::string path_of_process(std::int64_t pid) {
  return "/proc/" + std::to_string(pid) + "/ns/net";
}

}  // namespace

Result<NetnsTable::System> NetnsTable::real_system() {
  struct stat node {};
  if (stat("/proc/self/ns/net", &node) != 0) {
    return errno_error("/proc/self/ns/net", errno);
  }
  return System{.list_processes = [] { return pods::list_processes(); },
                .open_netns = [](std::int64_t pid) { return open_netns(path_of_process(pid)); },
                .list_addresses = [](int fd) { return list_addresses(fd); },
                .node_netns = node.st_ino};
}

void NetnsTable::attach(const std::string& container_id, const std::string& uid, UniqueFd netns,
                        Clock::time_point now, std::vector<std::string> addresses) {
  const auto inode = inode_of(netns.get());
  detach(container_id);  // runtimes may ask again
  entries_[uid].seats.push_back({.netns = std::move(netns),
                                 .inode = inode ? *inode : 0,
                                 .container_id = container_id,
                                 .addresses = std::move(addresses),
                                 .since = now});
}

bool NetnsTable::is_of(const Seat& seat, const std::string& container_id) {
  return seat.container_id == container_id ||
         seat.found_in.contains(container_id.substr(0, container_id.find('/')));
}

std::vector<UniqueFd> NetnsTable::detach(const std::string& container_id) {
  std::vector<UniqueFd> left;
  for (auto& [uid, entry] : entries_) {
    std::erase_if(entry.seats, [&](Seat& seat) {
      const bool leaves = is_of(seat, container_id);
      if (leaves) {
        left.push_back(std::move(seat.netns));
      }
      return leaves;
    });
  }
  return left;
}

void NetnsTable::keep_only(const std::set<std::string>& container_ids) {
  for (auto& [uid, entry] : entries_) {
    std::erase_if(entry.seats, [&](const Seat& seat) {
      return !seat.container_id.empty() && !container_ids.contains(seat.container_id);
    });
  }
}

bool NetnsTable::has(const std::string& container_id) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const auto& one) {
    const auto& seats = one.second.seats;
    return std::any_of(seats.begin(), seats.end(),
                       [&](const Seat& seat) { return is_of(seat, container_id); });
  });
}

bool NetnsTable::drop_strangers(const std::set<std::string>& uids, Clock::time_point now) {
  bool changed = false;
  for (auto it = entries_.begin(); it != entries_.end();) {
    auto& [uid, entry] = *it;
    const bool known = uids.contains(uid);
    if (!known) {
      changed =
          std::erase_if(entry.seats,
                        [&](const Seat& seat) {
                          return seat.container_id.empty() || now - seat.since > kStrangerPatience;
                        }) != 0 ||
          changed;
    }
    it = known || !entry.seats.empty() ? std::next(it) : entries_.erase(it);
  }
  return changed;
}

bool NetnsTable::scan_is_due(const std::vector<KnownPod>& pods, Clock::time_point now) {
  bool missing = false;
  bool is_new = false;
  Clock::duration youngest = kLastScan * 4;
  for (const KnownPod& pod : pods) {
    auto [entry, made] = entries_.try_emplace(pod.uid);
    const auto& seats = entry->second.seats;
    // What cannot be seen is not there sooner when it is looked for more often.
    if (!seats.empty() &&
        (!pod.has_runtime_class || seats.back().has_run || !entry->second.unseen.empty())) {
      entry->second.missing_since = {};
      continue;
    }
    if (entry->second.missing_since == Clock::time_point{}) {
      entry->second.missing_since = now;
      is_new = true;
    }
    missing = true;
    youngest = std::min(youngest, now - entry->second.missing_since);
  }
  if (!is_new && !(missing && now >= next_scan_) && now < next_check_) {
    return false;
  }
  next_scan_ = now + std::clamp<Clock::duration>(youngest / 4, kFirstScan, kLastScan);
  next_check_ = now + kCheck;
  return !pods.empty();
}

Result<NetnsTable::Seat> NetnsTable::prove(const KnownPod& pod, const PodProcess& process,
                                           Clock::time_point now) const {
  auto netns = system_.open_netns(process.pid);
  ST_TRY(netns);
  auto inode = inode_of(netns->get());
  ST_TRY(inode);
  if (*inode != process.netns) {
    return make_error(ErrorCode::kNotFound, "its process has just ended");
  }
  auto addresses = system_.list_addresses(netns->get());
  ST_TRY(addresses);
  for (const std::string& address : *addresses) {
    if (std::any_of(pod.addresses.begin(), pod.addresses.end(),
                    [&](const std::string& own) { return same_address(own, address); })) {
      return Seat{.netns = std::move(*netns), .inode = *inode, .container_id = "", .since = now};
    }
  }
  return make_error(ErrorCode::kNotFound, "no network namespace of its processes has its address " +
                                              pod.addresses.front());
}

void NetnsTable::find(const KnownPod& pod, Entry& entry, const std::vector<PodProcess>& processes,
                      Clock::time_point now) {
  entry.problem = processes.empty() && !entry.unseen.empty() ? entry.unseen
                  : processes.empty()     ? "none of its processes runs on this node yet"
                  : pod.addresses.empty() ? "the API has no address of it yet"
                                          : "its processes are in the node's network namespace";
  if (pod.addresses.empty()) {
    return;
  }
  std::set<ino_t> tried{system_.node_netns};
  for (const PodProcess& process : processes) {
    if (!tried.insert(process.netns).second) {
      continue;
    }
    auto seat = prove(pod, process, now);
    if (seat) {
      entry.problem.clear();
      for (const PodProcess& other : processes) {
        seat->found_in.insert(other.container_id);
      }
      entry.seats.push_back(std::move(*seat));
      return;
    }
    entry.problem = seat.error().message;
  }
}

std::string NetnsTable::sandbox_of_seats(const Entry& entry, const NodeProcesses& all) {
  for (const PodProcess& process : all.outside) {
    if (std::any_of(entry.seats.begin(), entry.seats.end(),
                    [&](const Seat& seat) { return seat.inode == process.netns; })) {
      return outside_sandbox_of(process.command_line);
    }
  }
  return "";
}

void NetnsTable::note_start(Entry& entry, const std::vector<PodProcess>& processes) {
  entry.running_since.reset();
  if (entry.seats.empty()) {
    return;
  }
  const Seat& seat = entry.seats.back();
  for (const PodProcess& process : processes) {
    if (process.netns == seat.inode && process.started && !is_pause(process.command_line)) {
      entry.running_since =
          std::min(entry.running_since.value_or(*process.started), *process.started);
    }
  }
}

// Whether that is news. The shim of Kata comes before its virtual machine.
bool NetnsTable::note_run(Entry& entry, const std::vector<PodProcess>& processes) {
  if (entry.seats.empty()) {
    return false;
  }
  Seat& seat = entry.seats.back();
  const bool runs =
      !entry.sandbox.empty() ||
      std::any_of(processes.begin(), processes.end(), [&](const PodProcess& one) {
        return one.netns == seat.inode && outside_sandbox_of(one.command_line).empty();
      });
  return runs && !std::exchange(seat.has_run, true);
}

bool NetnsTable::compare(const KnownPod& pod, const NodeProcesses& all, Clock::time_point now) {
  static const std::vector<PodProcess> kNone;
  const auto own = all.of_pods.find(pod.uid);
  const std::vector<PodProcess>& processes = own == all.of_pods.end() ? kNone : own->second;
  Entry& entry = entries_[pod.uid];
  std::string sandbox = sandbox_of_seats(entry, all);
  for (const PodProcess& process : processes) {
    sandbox = sandbox.empty() ? sandbox_of(process.command_line) : sandbox;
  }
  bool changed = std::exchange(entry.sandbox, sandbox) != sandbox;
  const auto hidden = all.unseen.find(pod.uid);
  const std::string unseen = hidden == all.unseen.end() ? "" : hidden->second;
  changed = std::exchange(entry.unseen, unseen) != unseen || changed;
  const auto is_stale = [&](const Seat& seat) {
    // A pod may be without any process for a while: between two containers, or while images come.
    return now - seat.since > kYoung && !processes.empty() &&
           std::none_of(processes.begin(), processes.end(),
                        [&](const PodProcess& process) { return process.netns == seat.inode; });
  };
  changed = std::erase_if(entry.seats, is_stale) != 0 || changed;
  if (entry.seats.empty()) {
    const std::string problem = entry.problem;
    find(pod, entry, processes, now);
    changed = changed || !entry.seats.empty() || entry.problem != problem;
  }
  note_start(entry, processes);
  return (note_run(entry, processes) && pod.has_runtime_class) || changed;
}

bool NetnsTable::look(const std::vector<KnownPod>& pods, Clock::time_point now) {
  std::set<std::string> uids;
  for (const KnownPod& pod : pods) {
    uids.insert(pod.uid);
  }
  bool changed = drop_strangers(uids, now);
  if (!scan_is_due(pods, now)) {
    return changed;
  }
  const auto processes = system_.list_processes();
  if (!processes) {
    for (const KnownPod& pod : pods) {
      entries_[pod.uid].problem = processes.error().message;
    }
    return changed;
  }
  for (const KnownPod& pod : pods) {
    changed = compare(pod, *processes, now) || changed;
  }
  return changed;
}

NetnsPlace NetnsTable::place(const std::string& uid) const {
  const auto found = entries_.find(uid);
  if (found == entries_.end()) {
    return {.path = "", .problem = "not looked for yet", .sandbox = "", .unseen = ""};
  }
  const Entry& entry = found->second;
  if (entry.seats.empty()) {
    return {.path = "", .problem = entry.problem, .sandbox = entry.sandbox, .unseen = entry.unseen};
  }
  return {.path = "/proc/self/fd/" + std::to_string(entry.seats.back().netns.get()),
          .problem = "",
          .sandbox = entry.sandbox,
          .has_run = entry.seats.back().has_run,
          .unseen = entry.unseen,
          .addresses = entry.seats.back().addresses,
          .running_since = entry.running_since};
}

}  // namespace sidetrack::pods
