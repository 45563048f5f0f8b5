// SPDX-License-Identifier: Apache-2.0
// Lab: one node (a netns with a bridge that forwards IPv4 and IPv6) and its pods (a netns each,
// joined by a veth), as a CNI with host routing would make them: 10.244.NODE.n/24 and
// fd00:10:244:NODE::n/64 (NODE hexadecimal), default routes by the bridge. Nothing touches the
// machine's own namespace. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidetrack/result.h"
#include "tests/lab/netns.h"

namespace sidetrack::lab {

struct Pod {
  std::string name;
  Netns netns;
  std::string v4;
  std::string v6;
};

class Lab {
 public:
  // node_index: third part of the addresses.
  static Result<std::unique_ptr<Lab>> create(std::string_view name, std::uint8_t node_index = 0);

  // A pod whose addresses answer at once. The reference is good as long as the Lab.
  Result<Pod*> add_pod(std::string_view name);
  // Takes the pod and its netns away (as far as no process or socket holds it).
  void remove_pod(const Pod& pod);

  // Makes `address` (v4 or v6, outside the pod networks) lead to one pod, without netfilter: the
  // address stands on the pod's lo, the node routes to the pod.
  Result<void> add_service_address(const std::string& address, const Pod& pod);

  // net.ipv4.ip_local_port_range, for IPv6 too.
  static Result<void> set_port_range(const Pod& pod, std::uint16_t low, std::uint16_t high);

  // Rules and tables of netfilter in the node and in every pod, nft's and iptables'; "" = none.
  [[nodiscard]] Result<std::string> firewall_rules() const;

  [[nodiscard]] const Netns& node() const { return node_; }
  [[nodiscard]] std::string node_v4() const;
  [[nodiscard]] std::string node_v6() const;

 private:
  Lab(Netns node, std::uint8_t index) : node_(std::move(node)), index_(index) {}
  [[nodiscard]] std::string v4(int host) const;
  [[nodiscard]] std::string v6(int host) const;
  Result<void> set_up_node();

  Netns node_;
  std::uint8_t index_;
  int next_host_ = 2;
  std::vector<std::unique_ptr<Pod>> pods_;
};

}  // namespace sidetrack::lab
