// SPDX-License-Identifier: Apache-2.0
#include "agent/main/known_pods.h"

#include <map>

#include "agent/pods/processes.h"
#include "sidetrack/fast_rules.h"
#include "sidetrack/log/log.h"

namespace sidetrack::agent {

std::optional<adopt::Pod> KnownPods::pod(std::uint64_t netns_cookie) {
  const auto row = dataplane_.pod(netns_cookie);
  const auto* owner = reconciler_.owner(netns_cookie);
  if (!row || !*row || owner == nullptr) {
    return std::nullopt;
  }
  adopt::Pod pod{.row = **row};
  const std::string key = owner->namespace_name + "/" + owner->name;
  const auto object = objects_.pods.find(key);
  const bool owned = object != objects_.pods.end() && !object->second.owner.empty();
  pod.workload = owned ? owner->namespace_name + "/" + object->second.owner
                       : owner->namespace_name + "/Pod/" + owner->name;
  const auto state = dataplane_.pod_state(netns_cookie);
  if (state && *state) {
    pod.demoted = static_cast<st_fast_reason>((*state)->demoted);
  }
  if (pod.demoted == ST_FAST_NONE && with_io_uring_.contains(netns_cookie)) {
    pod.demoted = ST_FAST_IO_URING;
  }
  return pod;
}

std::set<std::uint64_t> KnownPods::taking_part() const {
  std::set<std::uint64_t> pods;
  const auto rows = dataplane_.pods();
  for (const auto& [netns_cookie, row] :
       rows ? *rows : std::vector<std::pair<std::uint64_t, st_pod>>()) {
    if (st_pod_takes_part(&row) != 0) {
      pods.insert(netns_cookie);
    }
  }
  return pods;
}

std::vector<std::uint64_t> KnownPods::find_io_uring(const std::set<std::uint64_t>& pods) {
  std::map<ino_t, std::uint64_t> unknown;  // by the inode of its namespace
  std::set<ino_t> wanted;
  for (const std::uint64_t cookie : pods) {
    const auto path = reconciler_.netns_path(cookie);
    const auto id = path && !looked_at_.contains(cookie) ? netns_.identify(*path) : std::nullopt;
    if (id) {
      unknown[id->inode] = cookie;
      wanted.insert(id->inode);
    }
  }
  looked_at_ = pods;
  std::erase_if(with_io_uring_, [&pods](std::uint64_t cookie) { return !pods.contains(cookie); });
  if (wanted.empty()) {
    return {};
  }
  const auto found = pods::netns_with_io_uring(wanted);
  if (!found) {
    log_event(LogLevel::kWarn, "adopt", "list_failed", {{"detail", found.error().message}});
    return {};
  }
  std::vector<std::uint64_t> cookies;
  for (const ino_t inode : *found) {
    cookies.push_back(unknown.at(inode));
  }
  with_io_uring_.insert(cookies.begin(), cookies.end());
  return cookies;
}

}  // namespace sidetrack::agent
