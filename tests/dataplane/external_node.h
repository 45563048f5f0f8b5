// SPDX-License-Identifier: Apache-2.0
// ExternalNode: the fixture of the tests of external engines: pods server and other (not enrolled),
// pod client, and on the node HAProxy or Envoy as they come, in the engine's cgroup. Thread rule:
// one owner.
#pragma once

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/dataplane/proxies.h"
#include "tests/dataplane/scale_node.h"

namespace sidetrack::lab {

enum class ProxyKind { kNone, kHaproxy, kEnvoy };

// For failure messages and names of tests.
void PrintTo(ProxyKind kind, std::ostream* out);

class ExternalNode : public ScaleNode {
 protected:
  static constexpr std::uint16_t kEcho = 7000;

  // The pods with what runs in them, and the proxy's cgroup and folder.
  void set_up_pods();
  // The agent, told of `addresses`.
  void start_agent(const std::vector<std::string>& addresses);
  void start_haproxy_here(const std::vector<std::string>& addresses,
                          HaproxyKind kind = HaproxyKind::kPlain);
  // Before start_proxy_here(); skips the test without a package registry, should it need that.
  void find_proxy(ProxyKind kind);
  void start_proxy_here(ProxyKind kind, const std::vector<std::string>& addresses);
  [[nodiscard]] nlohmann::json engine_view() const;
  [[nodiscard]] std::string verdict(const std::string& address) const;
  void wait_until_redirected(const std::string& address);
  // A listener on the proxy's address, in its place, that only accepts: a proxy that is asked for
  // nothing might ask itself.
  void listen_as_proxy(const std::string& address);
  // Who the server at `address` sees: the proxy is on the node, a direct connection is the pod's.
  // Each server is asked on a port of its own: at the wrong one, nobody answers.
  std::string seen_by(const std::string& address, Family family = Family::kOfAddress);
  void expect_bytes(const std::string& address);
  // An AF_INET6 socket that asks for an IPv4 address.
  void expect_mapped(const Pod& pod);
  void expect_stream(const std::string& address, Family family);

  Pod* server_ = nullptr;
  Pod* other_ = nullptr;
  Pod* client_ = nullptr;
  std::unique_ptr<EchoServer> server_echo_;
  std::unique_ptr<EchoServer> other_echo_;
  std::unique_ptr<PodShell> shell_;
  std::string engine_cgroup_;
  std::unique_ptr<TempDir> proxy_folder_;
  std::string envoy_;  // its path
  ProxyKind proxy_kind_ = ProxyKind::kNone;
  std::unique_ptr<Process> proxy_;
  std::unique_ptr<PodShell> listener_;
  int listening_ = 0;  // the latest of listener_
};

}  // namespace sidetrack::lab
