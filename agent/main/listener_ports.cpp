// SPDX-License-Identifier: Apache-2.0
#include "agent/main/listener_ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "agent/policy/policy.h"

namespace sidetrack::agent {

namespace {

// Whether there are enough that no connection of the pod is given.
bool leaves_enough(const reconcile::PodStatus& pod, const ListenerPorts& ports) {
  const pods::NetnsFacts& facts = *pod.facts;
  const auto reserved = policy::parse_ports(facts.reserved_ports);
  const auto& own = pod.intent.container_ports;
  std::size_t left = 0;
  for (std::uint32_t i = ports.low; i <= ports.high && left < ports.per_pod; ++i) {
    const auto port = static_cast<std::uint16_t>(i);
    const bool is_given = port >= facts.port_low && port <= facts.port_high &&
                          !(reserved && reserved->contains(port));
    left += !is_given && std::find(own.begin(), own.end(), port) == own.end() ? 1 : 0;
  }
  return left >= ports.per_pod;
}

bool is_redirected(const reconcile::PodStatus& pod) {
  return pod.facts && pod.intent.state == policy::PodState::kEnrol &&
         pod.intent.mode == ST_MODE_REDIRECT;
}

std::string and_more(std::size_t pods) {
  return pods == 1 ? "" : fmt::format(" (so it is with {} pods)", pods);
}

}  // namespace

std::vector<admin::ProblemView> listener_port_problems(
    const std::vector<reconcile::PodStatus>& pods, const ListenerPorts& ports) {
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<const reconcile::PodStatus*>> found;
  for (const reconcile::PodStatus& pod : pods) {
    if (is_redirected(pod) && !leaves_enough(pod, ports)) {
      found[{pod.facts->port_low, pod.facts->port_high}].push_back(&pod);
    }
  }
  const std::string listeners = fmt::format("{}-{}", ports.low, ports.high);
  std::vector<admin::ProblemView> views;
  for (const auto& [range, of_range] : found) {
    const policy::PodIntent& first = of_range.front()->intent;
    views.push_back(
        {.severity = "warning",
         .object = "Pod/" + first.namespace_name + "/" + first.name,
         .key = "ip_local_port_range",
         .value = fmt::format("{}-{}", range.first, range.second),
         .reason =
             fmt::format("its connections may take all of the engine's --listener-ports {}: while "
                         "those that are open or closed less than a minute ago hold them, the "
                         "next engine of an upgrade, or the first one in a pod, finds none "
                         "to listen on{}",
                         listeners, and_more(of_range.size())),
         .action = fmt::format("set net.ipv4.ip_local_reserved_ports={} in the pod, or keep its "
                               "net.ipv4.ip_local_port_range out of them, or choose other "
                               "--listener-ports",
                               listeners)});
  }
  return views;
}

}  // namespace sidetrack::agent
