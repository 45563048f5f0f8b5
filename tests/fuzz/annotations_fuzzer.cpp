// SPDX-License-Identifier: Apache-2.0
// Any text as labels and annotations of a Namespace and a Pod, a line each: N or P and KEY=VALUE
// for an annotation, n or p for a label. What is compiled has to decide as the lists that it comes
// from do, and the same objects again must give the same policy.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "agent/policy/policy.h"

namespace {

using namespace sidetrack;

void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void read_line(std::string_view line, kube::Metadata& names, kube::Metadata& pod) {
  const auto equals = line.find('=');
  if (line.size() < 2 || equals == std::string_view::npos) {
    return;
  }
  const std::string key(line.substr(1, equals - 1));
  const std::string value(line.substr(equals + 1));
  switch (line.front()) {
    case 'N':
      names.annotations[key] = value;
      break;
    case 'n':
      names.labels[key] = value;
      break;
    case 'P':
      pod.annotations[key] = value;
      break;
    case 'p':
      pod.labels[key] = value;
      break;
    default:
      break;
  }
}

kube::ObjectSet read_objects(std::string_view text) {
  kube::ObjectSet objects;
  kube::Namespace& names = objects.namespaces["shop"];
  names.metadata.name = "shop";
  kube::Pod& pod = objects.pods["shop/web"];
  pod.metadata.name = "web";
  pod.metadata.namespace_name = "shop";
  pod.node_name = "n1";
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    read_line(line, names.metadata, pod.metadata);
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return objects;
}

// As the lists say, without what was compiled of them.
st_reason reason_by_lists(const policy::Rules& rules, const st_addr& address, std::uint16_t port) {
  for (const policy::PortList& list : rules.exclude_ports) {
    if (list.ports->contains(port)) {
      return ST_REASON_EXCLUDED_PORT;
    }
  }
  const auto on = [&](const policy::CidrList& list) {
    for (const policy::CidrRule& rule : *list.rules) {
      if (rule.ports.contains(port) && policy::covers(rule, address)) {
        return true;
      }
    }
    return false;
  };
  for (const policy::CidrList& list : rules.exclude_cidrs) {
    if (on(list)) {
      return ST_REASON_EXCLUDED_CIDR;
    }
  }
  const bool has_include = rules.include_ports || rules.include_cidrs;
  const bool included = (rules.include_ports && rules.include_ports->ports->contains(port)) ||
                        (rules.include_cidrs && on(*rules.include_cidrs));
  return has_include && !included ? ST_REASON_NOT_INCLUDED : ST_REASON_COUNT;
}

void check_pod(const policy::PodIntent& pod) {
  require(pod.compiled != nullptr);
  for (const char* host : {"10.1.2.3", "192.0.2.1", "fd00::1", "::1"}) {
    const st_addr address = policy::parse_address(host).value();
    for (const unsigned port : {1U, 80U, 443U, 8080U, 65535U}) {
      const auto number = static_cast<std::uint16_t>(port);
      const st_rules found = pod.compiled->look_up(address, number);
      const auto reason = static_cast<st_reason>(st_decide_rules(&found));
      require(reason == reason_by_lists(pod.rules, address, number));
      require(reason == ST_REASON_COUNT ||
              policy::deciding_rule(pod.rules, reason, address, number).has_value());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto objects = read_objects({reinterpret_cast<const char*>(data), size});
  policy::NodeSettings node;
  node.node_name = "n1";
  node.compat = {policy::Compat::kIstio, policy::Compat::kLinkerd, policy::Compat::kKuma};
  const auto first = policy::resolve(objects, node, {});
  require(first.pods.size() == 1);
  for (const kube::Problem& problem : first.problems) {
    require(problem.value.size() <= 200 && !problem.reason.empty());
  }
  // Too large a policy is not enforced at all.
  if (first.pods[0].reason.empty()) {
    check_pod(first.pods[0]);
  }
  const auto again = policy::resolve(objects, node, first.last_good);
  require(again.pods.size() == 1 && again.pods[0].mode == first.pods[0].mode &&
          *again.pods[0].compiled == *first.pods[0].compiled && again.problems == first.problems);
  return 0;
}
