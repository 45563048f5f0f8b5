// SPDX-License-Identifier: Apache-2.0
// The node's pods as the kernel has them: a pod is enrolled if its row is as it was written and the
// programs that read it are attached.
#include <arpa/inet.h>

#include <algorithm>

#include "agent/main/agent.h"
#include "agent/main/names.h"

namespace sidetrack::agent {

namespace {

std::string phase_name(reconcile::PodPhase phase) {
  switch (phase) {
    case reconcile::PodPhase::kEnrolled:
      return "enrolled";
    case reconcile::PodPhase::kPending:
      return "pending";
    case reconcile::PodPhase::kSkipped:
      return "skipped";
    case reconcile::PodPhase::kDrift:
      return "drift";
  }
  return "unknown";
}

std::vector<std::uint16_t> ports_of(const std::uint16_t* ports_be, std::uint8_t count) {
  std::vector<std::uint16_t> ports;
  for (std::uint8_t i = 0; i < count; ++i) {
    if (ports_be[i] != 0) {
      ports.push_back(ntohs(ports_be[i]));
    }
  }
  return ports;
}

void put_row(admin::PodView& view, const st_pod& row) {
  view.mode = mode_name(row.mode);
  view.on_engine_loss = on_engine_loss_name(row.on_engine_loss);
  view.fast_path = fast_path_name(row.fast_path);
  view.policy_id = row.policy_id;
  view.engine_ports = ports_of(row.port_v4_be, row.listeners_v4);
  view.engine_ports_v6 = ports_of(row.port_v6_be, row.listeners_v6);
  for (const st_addr& own : {row.own_v4, row.own_v6}) {
    if (st_addr_is_zero(&own) == 0) {
      view.addresses.push_back(policy::format_address(own));
    }
  }
}

void put_other_addresses(admin::PodView& view, const std::optional<pods::NetnsFacts>& facts) {
  const auto& own = view.addresses;
  if (facts) {
    std::ranges::copy_if(facts->addresses, std::back_inserter(view.other_addresses),
                         [&own](const std::string& address) {
                           return std::find(own.begin(), own.end(), address) == own.end();
                         });
  }
}

// By netns cookie.
std::map<std::uint64_t, std::uint64_t> count_connections(const dataplane::Dataplane& dataplane) {
  std::map<std::uint64_t, std::uint64_t> counts;
  if (const auto live = dataplane.live_sockets()) {
    for (const st_live& socket : *live) {
      ++counts[socket.client.netns_cookie];
    }
  }
  return counts;
}

}  // namespace

std::vector<reconcile::PodStatus> Agent::pod_statuses(
    const std::vector<dataplane::ProgramState>& programs) const {
  auto pods = reconciler_.status();
  const auto detached = std::find_if(programs.begin(), programs.end(),
                                     [](const auto& program) { return !program.attached; });
  if (detached == programs.end()) {
    return pods;
  }
  for (reconcile::PodStatus& pod : pods) {
    if (pod.phase == reconcile::PodPhase::kEnrolled) {
      pod.phase = reconcile::PodPhase::kDrift;
      pod.reason = kNotAttached;
      pod.detail = detached->name + " is not attached to " + detached->hook;
    }
  }
  return pods;
}

std::vector<admin::PodView> Agent::pods(const std::string& namespace_name) {
  std::vector<admin::PodView> views;
  const auto fast = fast_path_.summaries();
  auto connections = count_connections(*dataplane_);
  for (const reconcile::PodStatus& pod : pod_statuses(dataplane_->programs())) {
    if (!namespace_name.empty() && pod.intent.namespace_name != namespace_name) {
      continue;
    }
    admin::PodView view;
    view.namespace_name = pod.intent.namespace_name;
    view.pod = pod.intent.name;
    view.mode = mode_name(pod.intent.mode);
    view.state = phase_name(pod.phase);
    view.reason = pod.reason;
    view.reason_detail = pod.detail;
    view.fast_path = fast_path_name(pod.intent.fast_path);
    if (const auto summary = fast.find(pod.netns_cookie); summary != fast.end()) {
      view.fast_path_connections = summary->second.adopted;
      view.fast_path_waiting = summary->second.waiting;
      if (summary->second.reason != ST_FAST_NONE) {
        view.fast_path_reason = adopt::name_of(summary->second.reason);
      }
    }
    if (!fast_path_.on()) {
      view.fast_path_reason = adopt::name_of(fast_path_.reason());
    }
    view.on_engine_loss = on_engine_loss_name(pod.intent.on_engine_loss);
    if (kubernetes_) {
      view.captured_late_s =
          std::chrono::duration<double>(
              kubernetes_->late(pod.netns_cookie).value_or(std::chrono::milliseconds(0)))
              .count();
    }
    view.netns_cookie = pod.netns_cookie;
    if (pod.row) {
      put_row(view, *pod.row);
      put_other_addresses(view, pod.facts);
      view.connections = connections[pod.netns_cookie];
    }
    views.push_back(std::move(view));
  }
  for (admin::PodView& view : held_pods()) {
    if (namespace_name.empty() || view.namespace_name == namespace_name) {
      view.connections = connections[view.netns_cookie];
      views.push_back(std::move(view));
    }
  }
  return views;
}

// What an earlier agent enrolled: the kernel goes on with it, but has no names of pods.
std::vector<admin::PodView> Agent::held_pods() const {
  std::vector<admin::PodView> views;
  if (!is_held()) {
    return views;
  }
  const auto rows = dataplane_->pods();
  if (!rows) {
    return views;
  }
  for (const auto& [netns_cookie, row] : *rows) {
    if (row.mode == ST_MODE_DISABLED) {
      continue;
    }
    admin::PodView view{.namespace_name = dataplane_->namespace_of(row.namespace_slot),
                        .state = phase_name(reconcile::PodPhase::kEnrolled),
                        .reason = "held",
                        .reason_detail =
                            "as an earlier agent left it; which pod it is cannot be "
                            "known before the objects can be read",
                        .netns_cookie = netns_cookie};
    put_row(view, row);
    views.push_back(std::move(view));
  }
  return views;
}

}  // namespace sidetrack::agent
