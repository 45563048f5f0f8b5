// SPDX-License-Identifier: Apache-2.0
#include "agent/main/listener_ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "agent/policy/text.h"

namespace sidetrack::agent {

namespace {

// At an upgrade two engines listen in a pod, on no port both.
std::size_t wanted(const ListenerPorts& ports) {
  return 2 * ports.per_pod;
}

// What the kernel lists. It takes 0, too, and that is no port.
policy::PortSet parse_reserved(std::string_view list) {
  policy::PortSet ports;
  const auto add = [&ports](std::string_view item) -> Result<void> {
    const std::string numbered =
        item.starts_with("0-") ? "1" + std::string(item.substr(1)) : std::string(item);
    if (const auto range = policy::parse_port_range(numbered)) {
      ports.add(*range);
    }
    return {};
  };
  static_cast<void>(policy::for_each_item(list, add));
  return ports;
}

// How many no connection of the pod is given, if these are fewer than engines may want.
std::optional<std::size_t> too_few(const reconcile::PodStatus& pod, const ListenerPorts& ports) {
  const pods::NetnsFacts& facts = *pod.facts;
  const auto reserved = parse_reserved(facts.reserved_ports);
  const auto& own = pod.intent.container_ports;
  std::size_t left = 0;
  bool gives_any = false;
  for (std::uint32_t i = ports.low; i <= ports.high && left < wanted(ports); ++i) {
    const auto port = static_cast<std::uint16_t>(i);
    if (std::find(own.begin(), own.end(), port) != own.end()) {
      continue;
    }
    const bool is_given =
        port >= facts.port_low && port <= facts.port_high && !reserved.contains(port);
    gives_any = gives_any || is_given;
    left += is_given ? 0 : 1;
  }
  return gives_any && left < wanted(ports) ? std::optional(left) : std::nullopt;
}

bool is_redirected(const reconcile::PodStatus& pod) {
  return pod.facts && pod.intent.state == policy::PodState::kEnrol &&
         pod.intent.mode == ST_MODE_REDIRECT;
}

struct Crowded {
  const reconcile::PodStatus* pod;
  std::size_t left;
};

std::vector<Crowded> find_crowded(const std::vector<reconcile::PodStatus>& pods,
                                  const ListenerPorts& ports) {
  std::vector<Crowded> found;
  for (const reconcile::PodStatus& pod : pods) {
    if (const auto left = is_redirected(pod) ? too_few(pod, ports) : std::nullopt) {
      found.push_back({&pod, *left});
    }
  }
  return found;
}

std::string listeners_of(const ListenerPorts& ports) {
  return fmt::format("{}-{}", ports.low, ports.high);
}

kube::Problem problem_of(const Crowded& crowded, const ListenerPorts& ports) {
  const policy::PodIntent& intent = crowded.pod->intent;
  return {
      .object = "Pod/" + intent.namespace_name + "/" + intent.name,
      .key = "ip_local_port_range",
      .value = fmt::format("{}-{}", crowded.pod->facts->port_low, crowded.pod->facts->port_high),
      .reason = fmt::format(
          "its connections may take {} of the engine's --listener-ports {}: while those that "
          "are open or closed less than a minute ago hold them, an engine that comes to the "
          "pod may get fewer than its {}, or none (at an upgrade, two need {})",
          crowded.left == 0 ? "all" : fmt::format("all but {}", crowded.left), listeners_of(ports),
          ports.per_pod, wanted(ports)),
      .warning = true};
}

std::string and_more(std::size_t pods) {
  return pods == 1 ? "" : fmt::format(" (so it is with {} pods)", pods);
}

}  // namespace

std::vector<admin::ProblemView> listener_port_problems(
    const std::vector<reconcile::PodStatus>& pods, const ListenerPorts& ports) {
  // By the range's ends, and how many ports are left.
  std::map<std::tuple<std::uint32_t, std::uint32_t, std::size_t>, std::vector<Crowded>> found;
  for (const Crowded& crowded : find_crowded(pods, ports)) {
    const pods::NetnsFacts& facts = *crowded.pod->facts;
    found[{facts.port_low, facts.port_high, crowded.left}].push_back(crowded);
  }
  std::vector<admin::ProblemView> views;
  for (const auto& [range, of_range] : found) {
    const kube::Problem first = problem_of(of_range.front(), ports);
    views.push_back(
        {.severity = "warning",
         .object = first.object,
         .key = first.key,
         .value = first.value,
         .reason = first.reason + and_more(of_range.size()),
         .action = fmt::format("set net.ipv4.ip_local_reserved_ports={} in the pod, or keep its "
                               "net.ipv4.ip_local_port_range out of them, or choose other "
                               "--listener-ports",
                               listeners_of(ports))});
  }
  return views;
}

std::vector<kube::Problem> ListenerPortWatch::look(const std::vector<reconcile::PodStatus>& pods,
                                                   const ListenerPorts& ports) {
  std::vector<kube::Problem> fresh;
  std::set<std::uint64_t> now;
  for (const Crowded& crowded : find_crowded(pods, ports)) {
    now.insert(crowded.pod->netns_cookie);
    if (!told_.contains(crowded.pod->netns_cookie)) {
      fresh.push_back(problem_of(crowded, ports));
    }
  }
  told_ = std::move(now);
  return fresh;
}

}  // namespace sidetrack::agent
