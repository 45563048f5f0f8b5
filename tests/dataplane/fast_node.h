// SPDX-License-Identifier: Apache-2.0
// FastNode: a node whose connections skip TCP as early as the options allow, and the same on plain
// TCP beside it. Both ends of a connection are made by applications in their pods and then handed
// to the test, so that a scenario is a function of two descriptors. Thread rule: one owner.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "sidetrack/abi/fast.h"
#include "sidetrack/unique_fd.h"
#include "tests/dataplane/kernel_view.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/lab.h"
#include "tests/lab/objects.h"
#include "tests/lab/pod_shell.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {

// Both non-blocking, unless told.
struct Ends {
  UniqueFd client;
  UniqueFd server;
};

enum class Route { kV4, kV6, kMapped, kLoopback };

struct Way {
  std::string listen_on;
  std::string address;  // that the client connects to
  std::uint16_t port = 0;
  std::string bind{};  // the client's own, as of ConnectOptions
  Blocking blocking = Blocking::kNo;
};

// Why a scenario's own messages all go by TCP: the reason that the kernel counts ("fp_zerocopy"),
// or kTakenOut, if a socket may be off the fast path by then. Nothing: some must skip TCP.
using ByTcp = std::optional<std::string>;
inline constexpr const char* kTakenOut = "taken out";

class FastNode : public testing::Test {
 protected:
  using Scenario = std::function<std::string(Ends&)>;

  void SetUp() override;
  // Connections of "shop" or "plain" go to the engine from here on.
  void redirect(const std::string& name);
  // The pods alone, for tests that bring their own programs.
  void set_up_pods();

  // A new connection of namespace shop (fast path auto) or of plain (off), on TCP as yet.
  Ends open(bool fast, Route route = Route::kV4, Blocking blocking = Blocking::kNo);
  // A new connection between any two applications.
  static Ends join(PodShell& client, PodShell& server, const Way& way);
  // The same, used until both ends send past TCP; fails the test if that never happens.
  Ends open_fast(Route route = Route::kV4);
  // All of them at once, which takes no longer than one.
  void make_fast(const std::vector<Ends*>& all);
  // The scenario on plain TCP and past it must say the same, and not nothing.
  void expect_same(const Scenario& scenario, Route route = Route::kV4, const ByTcp& by_tcp = {});
  // What a scenario says, and what the kernel counted meanwhile.
  struct Counted {
    std::string said;
    FastCounts counts;
    std::uint64_t skipped = 0;  // messages past TCP, or past the engine
  };
  [[nodiscard]] Counted run_counted(const Scenario& scenario, Ends& ends) const;
  static void expect_way(const Counted& run, const ByTcp& by_tcp);
  // Why the latest connection of the pod ("shop/server") that is on TCP is.
  [[nodiscard]] std::string reason_of(const std::string& pod) const;
  // The newest flow record from there ("10.244.0.2:4711") in namespace shop, of an open or an ended
  // connection; {}: none yet.
  [[nodiscard]] nlohmann::json flow(const std::string& source, bool open) const;
  // Bytes past TCP of all open connections to or from an engine: what applications sent, and what
  // engines' sockets did.
  struct PastTcp {
    std::uint64_t applications = 0;
    std::uint64_t engines = 0;
  };
  [[nodiscard]] PastTcp past_tcp() const;
  // Messages past an engine, ever.
  [[nodiscard]] std::uint64_t handoffs() const;
  // Whether the sentinel is attached.
  [[nodiscard]] bool is_watched() const;
  // Whether the socket is adopted; what the kernel knows of it then. It may not be armed yet.
  [[nodiscard]] std::optional<st_fast> adopted(const UniqueFd& fd) const;

  // Two pods of one namespace with an application in each.
  struct World {
    Pod* client = nullptr;
    Pod* server = nullptr;
    std::unique_ptr<PodShell> client_shell;
    std::unique_ptr<PodShell> server_shell;
  };
  // Pods "client" and "server" of the namespace; objects and programs only.
  void make_world(World& world, const std::string& name);

  // Fast is only what goes past the engine, too.
  bool handoff_ = false;
  // Nothing is asked of servers: what they send to an engine in another pod's or the node's network
  // namespace goes by TCP.
  bool clients_only_ = false;
  // With these SetUp() starts an engine, and their connections go to it.
  std::vector<std::string> redirected_;
  // Of the agent and the engine that SetUp() prepares.
  std::vector<std::string> engine_arguments_;
  std::vector<std::string> agent_arguments_{
      "--fast-path-probation", "0s", "--fast-path-round-trips", "4", "--fast-path-loopback", "on"};
  // Members are destroyed from the last to the first.
  std::unique_ptr<TestCgroup> cgroup_;
  std::unique_ptr<TempDir> folder_;
  std::unique_ptr<Objects> objects_;
  std::unique_ptr<Lab> lab_;
  std::unique_ptr<Sidetrack> sidetrack_;
  World shop_;   // fast path auto
  World plain_;  // off

 private:
  // The application's descriptor, now ours alone.
  static UniqueFd take(PodShell& shell, int id, Blocking blocking);
};

// The socket's own address, as flow records have it.
[[nodiscard]] std::string source_of(const UniqueFd& fd);
// Bytes that TCP itself has sent on the socket, ever.
[[nodiscard]] std::uint64_t sent_by_tcp(const UniqueFd& fd);
// Everything that TCP sent has reached the other end's kernel.
[[nodiscard]] bool is_acknowledged(const UniqueFd& fd);
// The socket's own.
[[nodiscard]] std::uint16_t port_of(const UniqueFd& fd);
[[nodiscard]] std::uint64_t cookie_of(const UniqueFd& fd);
// iptables in the pod's namespace, which must take the arguments; what it says.
std::string filter(const Pod& pod, const std::string& arguments);
// Fails the test if it cannot be set.
void set_option(const UniqueFd& fd, int level, int option, int value);
// Sends all of it; "sent", or the errno's name.
[[nodiscard]] std::string send_text(const UniqueFd& fd, std::string_view text);
// `text` from one end to the other and read there; fails the test if it does not arrive.
void pass(const UniqueFd& from, const UniqueFd& to, std::string_view text);
// Round trips enough to be adopted, and nothing on the way after them.
void use(const Ends& ends);
// One byte from end to end and read there; whether TCP did not send it.
[[nodiscard]] bool skips_tcp(const UniqueFd& from, const UniqueFd& to);
// What one recv() of up to `length` says within `within`: the bytes in quotes, "EOF", or the
// errno's name ("EAGAIN": nothing came).
[[nodiscard]] std::string receive_text(const UniqueFd& fd, std::size_t length, int flags = 0,
                                       milliseconds within = kPatience);

}  // namespace sidetrack::lab
