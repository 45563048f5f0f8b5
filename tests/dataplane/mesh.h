// SPDX-License-Identifier: Apache-2.0
// Mesh: what most dataplane tests stand on. One node with Sidetrack (agent and embedded engine) and
// four pods: shop/web (mode redirect), depot/api and depot/spare (servers, not enrolled), depot/
// plain (not enrolled: the control) and a netns that no object names (`stranger`). Members are
// destroyed from the last to the first. Thread rule: one owner; a PodShell per thread.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/types.h"
#include "tests/dataplane/kernel_view.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/echo_server.h"
#include "tests/lab/lab.h"
#include "tests/lab/objects.h"
#include "tests/lab/pod_shell.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {

inline constexpr const char* kExcludePorts = "sidetrack.io/exclude-outbound-ports";
inline constexpr const char* kExcludeCidrs = "sidetrack.io/exclude-outbound-cidrs";
inline constexpr const char* kIncludePorts = "sidetrack.io/include-outbound-ports";
inline constexpr const char* kIncludeCidrs = "sidetrack.io/include-outbound-cidrs";
inline constexpr const char* kMode = "sidetrack.io/mode";
inline constexpr const char* kOnEngineLoss = "sidetrack.io/on-engine-loss";

// Ports of the servers in api and spare.
inline constexpr std::uint16_t kEcho = 7000;
inline constexpr std::uint16_t kHash = 7001;
inline constexpr std::uint16_t kWhoami = 7002;
inline constexpr std::uint16_t kReset = 7003;
inline constexpr std::uint16_t kGreeting = 7004;
inline constexpr std::uint16_t kSilent = 7005;
inline constexpr std::uint16_t kEchoToo = 7100;
inline constexpr std::uint16_t kHttps = 443;  // an echo server, too
inline constexpr std::uint16_t kUdp = 7053;
inline constexpr std::uint16_t kClosed = 9;  // nobody listens

// The Service that leads to api's and spare's echo servers.
inline constexpr const char* kServiceV4 = "10.96.0.10";
inline constexpr const char* kServiceV6 = "fd00:10:96::a";
inline constexpr std::uint16_t kServicePort = 80;

using Counts = std::map<std::string, std::uint64_t>;

class Mesh : public testing::Test {
 protected:
  void SetUp() override;
  // What SetUp does after the pods and objects are there; tests that need other arguments override
  // it.
  virtual void start_sidetrack();

  [[nodiscard]] Place place(const Pod& pod) const { return {pod.netns.path(), cgroup_->path()}; }
  // A Service of depot whose Service port is kServicePort.
  static ServiceSpec service(std::vector<Backend> backends);

  // depot/plain becomes a second enrolled pod.
  void enrol_neighbour();
  // Sets the annotation of namespace shop and waits until the kernel decides by it.
  void annotate(const char* key, const std::string& value);
  void label(const char* key, const std::string& value);
  // The policy id and mode of shop/web's row in the kernel.
  [[nodiscard]] std::string row_mark() const;

  // The maps as they are pinned, with or without an agent.
  [[nodiscard]] KernelView kernel() const { return KernelView(sidetrack_->pin_dir()); }
  // Kernel counters by reason of one namespace ("" = none of ours), 0 rows left out.
  [[nodiscard]] Counts counts(const std::string& namespace_name = "shop") const;
  [[nodiscard]] nlohmann::json explain(const std::string& address, std::uint16_t port,
                                       const std::string& pod = "shop/web") const;
  // All flow records and live connections whose client socket is `source` ("10.244.0.2:4711").
  [[nodiscard]] std::vector<nlohmann::json> flows_from(const std::string& source) const;
  // Waits for the closed flow of `source` and gives it; null if it never came.
  [[nodiscard]] nlohmann::json closed_flow(const std::string& source) const;
  // "ADDRESS:PORT" that the socket itself shows.
  static std::string source_of(PodShell& shell, int id);

  // What the kernel's maps hold for a socket of the shell: "redirected" (st_sockets), "observed"
  // (st_observed), or "" (no row).
  [[nodiscard]] Result<std::string> remembered(PodShell& shell, int id) const;
  // The same of a connect that is made and closed for it, "none" for no row; what went wrong else.
  [[nodiscard]] std::string role_of_connect(PodShell& shell, const std::string& address,
                                            std::uint16_t port) const;
  // Whether a map has what is shown of a client's open connection (st_redirected, st_observed).
  [[nodiscard]] Result<bool> is_listed(std::uint64_t socket_cookie) const;
  // The socket itself, and its cookie.
  [[nodiscard]] static Result<UniqueFd> take(PodShell& shell, int id);
  [[nodiscard]] static Result<std::uint64_t> cookie(PodShell& shell, int id);

  std::unique_ptr<TestCgroup> cgroup_;
  std::unique_ptr<TempDir> folder_;
  std::unique_ptr<Objects> objects_;
  std::unique_ptr<Lab> lab_;
  Pod* web_ = nullptr;
  Pod* api_ = nullptr;
  Pod* spare_ = nullptr;
  Pod* plain_ = nullptr;
  Pod* stranger_ = nullptr;
  SidetrackOptions options_;
  std::unique_ptr<Sidetrack> sidetrack_;
  std::unique_ptr<EchoServer> echo_;
  std::unique_ptr<EchoServer> spare_echo_;
  std::unique_ptr<PodShell> shell_;    // in web
  std::unique_ptr<PodShell> control_;  // in plain
};

// `counts` with one more of `reason`.
[[nodiscard]] Counts plus_one(Counts counts, const std::string& reason);
// "10.1.2.3:80", "[fd00::1]:80".
[[nodiscard]] std::string endpoint_text(const std::string& address, std::uint16_t port);

}  // namespace sidetrack::lab
