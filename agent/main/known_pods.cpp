// SPDX-License-Identifier: Apache-2.0
#include "agent/main/known_pods.h"

#include "agent/main/pod_netns.h"
#include "sidetrack/fast_rules.h"

namespace sidetrack::agent {

namespace {

std::string name_of(const reconcile::Reconciler::Owner& owner) {
  return owner.namespace_name + "/" + owner.name;
}

}  // namespace

const kube::Pod* KnownPods::object_of(const reconcile::Reconciler::Owner& owner) const {
  const auto found = objects_.pods.find(name_of(owner));
  return found == objects_.pods.end() ? nullptr : &found->second;
}

std::optional<adopt::Pod> KnownPods::pod(std::uint64_t netns_cookie) {
  const auto row = dataplane_.pod(netns_cookie);
  const auto* owner = reconciler_.owner(netns_cookie);
  if (!row || !*row || owner == nullptr) {
    return std::nullopt;
  }
  adopt::Pod pod{.row = **row};
  const auto* object = object_of(*owner);
  const bool owned = object != nullptr && !object->owner.empty();
  pod.workload = owner->namespace_name + "/" + (owned ? object->owner : "Pod/" + owner->name);
  const auto state = dataplane_.pod_state(netns_cookie);
  if (state && *state) {
    pod.demoted = static_cast<st_fast_reason>((*state)->demoted);
  }
  if (pod.demoted == ST_FAST_NONE && rings_.has_ring(netns_cookie)) {
    pod.demoted = ST_FAST_IO_URING;
  }
  pod.unseen = !rings_.has_looked_at(netns_cookie);
  return pod;
}

std::optional<std::string> KnownPods::demoted_of(const std::string& workload) {
  const auto rows = dataplane_.pods();
  for (const auto& [netns_cookie, row] :
       rows ? *rows : std::vector<std::pair<std::uint64_t, st_pod>>()) {
    const auto known = pod(netns_cookie);
    if (known && known->workload == workload && known->demoted != ST_FAST_NONE) {
      return name_of(*reconciler_.owner(netns_cookie));
    }
  }
  return std::nullopt;
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

std::optional<RingLooks::Place> KnownPods::place_of(std::uint64_t netns_cookie) const {
  const auto path = reconciler_.netns_path(netns_cookie);
  const auto file = path ? netns_.identify(*path) : std::nullopt;
  if (!file) {
    return std::nullopt;
  }
  const auto* owner = reconciler_.owner(netns_cookie);
  const auto* object = owner == nullptr ? nullptr : object_of(*owner);
  return RingLooks::Place{.netns = file->inode,
                          .pod_uid = object == nullptr ? "" : kubelet_uid(*object)};
}

}  // namespace sidetrack::agent
