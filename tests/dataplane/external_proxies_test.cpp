// SPDX-License-Identifier: Apache-2.0
// HAProxy and Envoy as external engines, on each of the addresses at which they can listen: the
// node's own, as the agent is told them, or all.
#include <fmt/format.h>
#include <signal.h>

#include <ostream>
#include <string>
#include <vector>

#include "sidetrack/abi/types.h"
#include "tests/dataplane/external_node.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

struct Way {
  const char* name;
  ProxyKind proxy;
  std::vector<std::string> listens;  // none: on the node's own addresses
};
void PrintTo(const Way& way, std::ostream* out) {
  *out << way.name;
}

class ExternalProxies : public ExternalNode, public testing::WithParamInterface<Way> {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(ExternalNode::SetUp());
    if (!IsSkipped()) {
      find_proxy(GetParam().proxy);
    }
  }

  [[nodiscard]] bool serves_v6() const { return GetParam().proxy == ProxyKind::kEnvoy; }
  [[nodiscard]] std::vector<std::string> served(const std::string& v4,
                                                const std::string& v6) const {
    return serves_v6() ? std::vector{v4, v6} : std::vector{v4};
  }

  // Pods, agent and proxy; the agent is told both addresses of the node.
  void start() {
    const std::vector<std::string> own = {lab_->node_v4(), lab_->node_v6()};
    ASSERT_NO_FATAL_FAILURE(set_up_pods());
    ASSERT_NO_FATAL_FAILURE(start_agent(own));
    ASSERT_NO_FATAL_FAILURE(start_proxy_here(GetParam().proxy, GetParam().listens.empty()
                                                                   ? served(own[0], own[1])
                                                                   : GetParam().listens));
    for (const std::string& address : served(server_->v4, server_->v6)) {
      wait_until_redirected(address);
    }
  }

  // Connections that the proxy was ever given, by whomever.
  [[nodiscard]] std::uint64_t arrived() const {
    const auto rows = sidetrack_->dump_map("st_engines");
    return rows ? rows->at(ST_EXTERNAL_ENGINE_SLOT)
                      .value("/formatted/value/arrived"_json_pointer, std::uint64_t{0})
                : 0;
  }

  void expect_nothing_for_who_was_not_redirected() {
    const std::vector<std::string> addresses = served(lab_->node_v4(), lab_->node_v6());
    const auto before = arrived();
    for (const std::string& own : addresses) {
      ST_ASSERT_VALUE(const auto socket, shell_->connect(own, kProxyPort));
      EXPECT_EQ(socket.errno_name, "") << own;
      ST_ASSERT_VALUE(const auto nothing, shell_->receive_to_end(socket.id));
      EXPECT_EQ(nothing.length, 0U) << own;
    }
    EXPECT_EQ(arrived(), before + addresses.size()) << "the proxy asked itself";
  }

  void expect_direct_once_it_is_killed() {
    const std::vector<std::string> addresses = served(server_->v4, server_->v6);
    const auto before = counted("engine_down");
    ST_ASSERT_OK(sidetrack_->agent().signal(SIGSTOP));  // the kernel alone sees it
    proxy_->kill_hard();  // returns when it is reaped: its listeners are closed
    for (const std::string& address : addresses) {
      ST_ASSERT_VALUE(const auto burst, shell_->burst(address, kEcho, {.count = 50}));
      EXPECT_EQ(burst.ok, 50U) << address;
    }
    ST_ASSERT_OK(sidetrack_->agent().signal(SIGCONT));
    EXPECT_EQ(counted("engine_down"), before + 50 * addresses.size());
  }
};

TEST_P(ExternalProxies, forward_to_the_server_asked_for_until_killed) {
  ASSERT_NO_FATAL_FAILURE(start());
  for (const Pod* pod : {server_, other_}) {
    for (const std::string& address : served(pod->v4, pod->v6)) {
      expect_bytes(address);
    }
    EXPECT_EQ(seen_by(pod->v4), lab_->node_v4());
    EXPECT_EQ(seen_by(pod->v6), serves_v6() ? lab_->node_v6() : client_->v6);
    expect_mapped(*pod);
  }
  EXPECT_EQ(counted("redirected"), 2 * (serves_v6() ? 406U : 204U));
  EXPECT_EQ(arrived(), counted("redirected")) << "the proxy's own connections lead to itself";
  ST_ASSERT_VALUE(const std::string rules, lab_->firewall_rules());
  EXPECT_EQ(rules, "");
  EXPECT_EQ(engine_view()["state"], "up");
  EXPECT_EQ(
      engine_view()["detail"],
      serves_v6() ? "" : fmt::format("nothing listens on [{}]:{}", lab_->node_v6(), kProxyPort));
  expect_nothing_for_who_was_not_redirected();
  expect_direct_once_it_is_killed();
}

INSTANTIATE_TEST_SUITE_P(
    All, ExternalProxies,
    testing::Values(Way{"haproxy", ProxyKind::kHaproxy, {}},
                    Way{"haproxy_on_any_address", ProxyKind::kHaproxy, {"0.0.0.0"}},
                    Way{"envoy", ProxyKind::kEnvoy, {}},
                    Way{"envoy_on_any_address", ProxyKind::kEnvoy, {"0.0.0.0", "::"}},
                    Way{"envoy_dual_stack", ProxyKind::kEnvoy, {"::"}}),
    [](const auto& way) { return std::string(way.param.name); });

enum class First { kClient, kServer };

class ExternalHalfClose : public ExternalProxies {
 protected:
  static constexpr std::uint16_t kPort = 7003;
  static constexpr unsigned kSaid = 50'000;  // fits into buffers while nobody reads

  void start() {
    ASSERT_NO_FATAL_FAILURE(ExternalProxies::start());
    server_shell_ = shell_in(*server_);
    ST_ASSERT_VALUE(const auto listener, server_shell_->listen("::", kPort));
    ASSERT_EQ(listener.error_number, 0);
    listener_id_ = listener.id;
  }

  // One end says all that it has to say and half-closes; what the other one has read by then.
  static void expect_said(PodShell& from, int from_id, PodShell& to, int to_id, int seed) {
    ST_ASSERT_VALUE(const json sent,
                    from.command(fmt::format("send {} len={} seed={}", from_id, kSaid, seed)));
    EXPECT_EQ(sent["sent"], kSaid) << sent;
    ST_ASSERT_VALUE(const auto ended, from.shutdown(from_id));
    EXPECT_EQ(ended.errno_name, "");
    ST_ASSERT_VALUE(const auto read, to.receive_to_end(to_id));
    EXPECT_EQ(read.error_number, 0);
    EXPECT_EQ(read.length, kSaid);
    EXPECT_EQ(read.digest, pattern_digest(static_cast<std::uint64_t>(seed), kSaid));
  }

  // `first` half-closes, and then the other one speaks.
  void expect_half_closes(PodShell& client, const std::string& address, First first) {
    ST_ASSERT_VALUE(const auto socket, client.connect(address, kPort));
    ASSERT_EQ(socket.errno_name, "");
    // A proxy may wait for the first bytes before it connects.
    ST_ASSERT_VALUE(const auto accepted, server_shell_->accept(listener_id_));
    ASSERT_EQ(accepted.error_number, 0);
    if (first == First::kClient) {
      expect_said(client, socket.id, *server_shell_, accepted.id, 1);
      expect_said(*server_shell_, accepted.id, client, socket.id, 2);
    } else {
      expect_said(*server_shell_, accepted.id, client, socket.id, 3);
      expect_said(client, socket.id, *server_shell_, accepted.id, 4);
    }
    ST_ASSERT_OK(client.close(socket.id));
    ST_ASSERT_OK(server_shell_->close(accepted.id));
  }

  std::unique_ptr<PodShell> server_shell_;
  int listener_id_ = 0;
};

TEST_P(ExternalHalfClose, passes_in_both_directions) {
  ASSERT_NO_FATAL_FAILURE(start());
  const auto plain = shell_in(*other_);
  const std::vector<std::string> addresses = served(server_->v4, server_->v6);
  for (const std::string& address : addresses) {
    for (const First first : {First::kClient, First::kServer}) {
      SCOPED_TRACE(fmt::format("{}, {} first", address,
                               first == First::kClient ? "the client" : "the server"));
      expect_half_closes(*plain, address, first);
      expect_half_closes(*shell_, address, first);
    }
  }
  EXPECT_EQ(counted("redirected"), 2 * addresses.size());
}

INSTANTIATE_TEST_SUITE_P(All, ExternalHalfClose,
                         testing::Values(Way{"haproxy", ProxyKind::kHaproxy, {}},
                                         Way{"envoy", ProxyKind::kEnvoy, {}}),
                         [](const auto& way) { return std::string(way.param.name); });

}  // namespace
}  // namespace sidetrack::lab
