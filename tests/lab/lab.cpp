// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/lab.h"

#include <fmt/format.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/lab/process.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

bool carrier_up(const Netns& netns, const char* device) {
  return netns
      .run([&]() -> Result<void> {
        const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        ifreq request{};
        std::strncpy(request.ifr_name, device, sizeof(request.ifr_name) - 1);
        if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) {
          return errno_error("flags of a device", errno);
        }
        if ((request.ifr_flags & IFF_RUNNING) == 0) {
          return make_error(ErrorCode::kBusy, "no carrier yet");
        }
        return {};
      })
      .has_value();
}

bool is_v6(std::string_view address) {
  return address.find(':') != std::string_view::npos;
}

}  // namespace

std::string Lab::v4(int host) const {
  return fmt::format("10.244.{}.{}", index_, host);
}
// In the form that inet_ntop gives, so that tests can compare text.
std::string Lab::v6(int host) const {
  return index_ == 0 ? fmt::format("fd00:10:244::{:x}", host)
                     : fmt::format("fd00:10:244:{:x}::{:x}", index_, host);
}
std::string Lab::node_v4() const {
  return v4(1);
}
std::string Lab::node_v6() const {
  return v6(1);
}

Result<std::unique_ptr<Lab>> Lab::create(std::string_view name, std::uint8_t node_index) {
  auto node = Netns::create(fmt::format("{}-node", name));
  if (!node) {
    return node.error();
  }
  std::unique_ptr<Lab> lab(new Lab(std::move(*node), node_index));
  ST_TRY(lab->set_up_node());
  return lab;
}

Result<void> Lab::set_up_node() {
  // The detour of Service addresses enters and leaves by the bridge: redirects would teach pods a
  // shortcut meanwhile.
  for (const char* key : {"ipv4/conf/all/send_redirects", "ipv4/conf/default/send_redirects"}) {
    ST_TRY(node_.write_sysctl(key, "0"));
  }
  ST_TRY(node_.write_sysctl("ipv4/ip_forward", "1"));
  ST_TRY(node_.write_sysctl("ipv6/conf/all/forwarding", "1"));
  // No bridge port is up yet, so the bridge itself has no carrier: nodad alone makes its IPv6
  // address usable.
  return node_.ip(
      fmt::format("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
                  "link set br0 up\n"
                  "addr add {}/24 dev br0\n"
                  "addr add {}/64 dev br0 nodad\n",
                  node_v4(), node_v6()));
}

Result<Pod*> Lab::add_pod(std::string_view name) {
  if (next_host_ > 254) {
    return make_error(ErrorCode::kFull, "the lab's node is full");
  }
  auto netns = Netns::create(name);
  if (!netns) {
    return netns.error();
  }
  const int host = next_host_++;
  auto pod = std::make_unique<Pod>(Pod{std::string(name), std::move(*netns), v4(host), v6(host)});
  ST_TRY(pod->netns.write_sysctl("ipv6/conf/all/accept_redirects", "0"));
  ST_TRY(pod->netns.write_sysctl("ipv6/conf/default/accept_redirects", "0"));
  const std::string port = fmt::format("pod{}", host);
  ST_TRY(
      node_.ip(fmt::format("link add {0} type veth peer name eth0 netns {1}\n"
                           "link set {0} master br0 up\n",
                           port, pod->netns.name())));
  ST_TRY(
      pod->netns.ip(fmt::format("link set eth0 up\n"
                                "addr add {}/24 dev eth0\n"
                                "addr add {}/64 dev eth0 nodad\n"
                                "route add default via {}\n"
                                "route add default via {}\n",
                                pod->v4, pod->v6, node_v4(), node_v6())));
  if (!eventually(kPatience, [&] {
        return carrier_up(pod->netns, "eth0") && carrier_up(node_, port.c_str()) &&
               carrier_up(node_, "br0");
      })) {
    return make_error(ErrorCode::kBusy, fmt::format("pod {}: its veth has no carrier", name));
  }
  pods_.push_back(std::move(pod));
  return pods_.back().get();
}

void Lab::remove_pod(const Pod& pod) {
  (void)pod.netns.ip("link del eth0");  // at once, also when a process still holds the netns
  std::erase_if(pods_, [&](const auto& known) { return known.get() == &pod; });
}

Result<void> Lab::add_service_address(const std::string& address, const Pod& pod) {
  if (is_v6(address)) {
    ST_TRY(pod.netns.ip(fmt::format("addr add {}/128 dev lo nodad", address)));
    return node_.ip(fmt::format("route replace {}/128 via {} dev br0", address, pod.v6));
  }
  ST_TRY(pod.netns.ip(fmt::format("addr add {}/32 dev lo", address)));
  return node_.ip(fmt::format("route replace {}/32 via {} dev br0", address, pod.v4));
}

Result<std::string> Lab::firewall_rules() const {
  std::vector<const Netns*> spaces = {&node_};
  for (const auto& pod : pods_) {
    spaces.push_back(&pod->netns);
  }
  std::string found;
  for (const Netns* netns : spaces) {
    // A kernel without iptables has no such files.
    auto rules = run_command({.arguments = {"sh", "-c",
                                            "nft list ruleset || exit 1; for family in ip ip6; do "
                                            "cat /proc/net/${family}_tables_names 2>/dev/null; "
                                            "done; true"},
                              .netns_path = netns->path()});
    ST_TRY(rules);
    // Without nft nobody looked, which is as bad as a rule.
    if (rules->exit_status != 0 || !rules->standard_output.empty()) {
      found += netns->name() + ":\n" + rules->output;
    }
  }
  return found;
}

Result<void> Lab::set_port_range(const Pod& pod, std::uint16_t low, std::uint16_t high) {
  return pod.netns.write_sysctl("ipv4/ip_local_port_range", fmt::format("{} {}", low, high));
}

}  // namespace sidetrack::lab
