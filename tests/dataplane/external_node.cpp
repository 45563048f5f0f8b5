// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/external_node.h"

#include <fmt/format.h>

namespace sidetrack::lab {
namespace {

using nlohmann::json;

constexpr std::uint16_t kWhoami = 7001;
constexpr std::uint16_t kOtherWhoami = 7002;
constexpr unsigned kBytes = 3'000'000;

}  // namespace

void PrintTo(ProxyKind kind, std::ostream* out) {
  *out << (kind == ProxyKind::kNone ? "none" : kind == ProxyKind::kEnvoy ? "envoy" : "haproxy");
}

void ExternalNode::set_up_pods() {
  server_ = &plain_pod("server");
  other_ = &plain_pod("other");
  client_ = &meshed_pod("client");
  server_echo_ = echo_in(*server_, {"echo:7000", "whoami:7001"});
  other_echo_ = echo_in(*other_, {"echo:7000", "whoami:7002"});
  shell_ = shell_in(*client_);
  ST_ASSERT_VALUE(engine_cgroup_, cgroup_->child("engine"));
  ST_ASSERT_VALUE(auto folder, TempDir::create("proxy"));
  proxy_folder_ = std::make_unique<TempDir>(std::move(folder));
}

void ExternalNode::start_agent(const std::vector<std::string>& addresses) {
  std::string engine = "external=";
  for (const std::string& address : addresses) {
    engine += engine.back() == '=' ? "" : ",";
    engine += address.find(':') == std::string::npos ? address : "[" + address + "]";
    engine += fmt::format(":{}", kProxyPort);
  }
  ASSERT_NO_FATAL_FAILURE(
      make_sidetrack({.engine = engine, .agent_arguments = {"--engine-cgroup", engine_cgroup_}}));
  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_NO_FATAL_FAILURE(wait_until_enrolled("client"));
}

void ExternalNode::start_haproxy_here(const std::vector<std::string>& addresses, HaproxyKind kind) {
  proxy_kind_ = ProxyKind::kHaproxy;
  ST_ASSERT_VALUE(proxy_, start_haproxy({lab_->node().path(), engine_cgroup_}, *proxy_folder_,
                                        addresses, kind));
}

void ExternalNode::find_proxy(ProxyKind kind) {
  if (kind != ProxyKind::kEnvoy) {
    return;
  }
  const auto envoy = find_envoy();
  if (!envoy && envoy.error().code == ErrorCode::kNotFound) {
    GTEST_SKIP() << "the package registry cannot be reached: " << envoy.error().message;
  }
  ST_ASSERT_VALUE(envoy_, envoy);
}

void ExternalNode::start_proxy_here(ProxyKind kind, const std::vector<std::string>& addresses) {
  if (kind != ProxyKind::kEnvoy) {
    start_haproxy_here(addresses);
    return;
  }
  proxy_kind_ = kind;
  ST_ASSERT_VALUE(proxy_, start_envoy(envoy_, {lab_->node().path(), engine_cgroup_}, *proxy_folder_,
                                      addresses));
}

nlohmann::json ExternalNode::engine_view() const {
  const auto status = sidetrack_->get("/v1/status");
  return status ? status->value("engine", json::object()) : json::object();
}

std::string ExternalNode::verdict(const std::string& address) const {
  const std::string host = address.find(':') == std::string::npos ? address : "[" + address + "]";
  return explain("client", fmt::format("{}:{}", host, kEcho));
}

void ExternalNode::wait_until_redirected(const std::string& address) {
  EXPECT_TRUE(eventually(scaled(milliseconds(30'000)),
                         [&] { return verdict(address) == "redirected/redirected"; }))
      << verdict(address) << "\n"
      << engine_view().dump() << "\n"
      << proxy_->output();
}

void ExternalNode::listen_as_proxy(const std::string& address) {
  if (!listener_) {
    ST_ASSERT_VALUE(listener_, PodShell::start({lab_->node().path(), engine_cgroup_}));
  }
  ST_ASSERT_VALUE(const auto socket, listener_->listen(address, kProxyPort));
  ASSERT_EQ(socket.error_number, 0) << address;
  listening_ = socket.id;
}

std::string ExternalNode::seen_by(const std::string& address, Family family) {
  const bool is_other = address == other_->v4 || address == other_->v6;
  const auto socket =
      shell_->connect(address, is_other ? kOtherWhoami : kWhoami, {.family = family});
  if (!socket || socket->error_number != 0) {
    return socket ? socket->errno_name : socket.error().message;
  }
  const auto line = shell_->receive(socket->id, 100);
  return line ? line->text.substr(0, line->text.find(' ')) : line.error().message;
}

void ExternalNode::expect_bytes(const std::string& address) {
  ST_ASSERT_VALUE(const auto burst, shell_->burst(address, kEcho, {.count = 200, .threads = 4}));
  EXPECT_EQ(burst.ok, 200U) << address << " " << burst.connect_errors.size() << " connect, "
                            << burst.io_errors.size() << " io errors";
  expect_stream(address, Family::kOfAddress);
}

void ExternalNode::expect_mapped(const Pod& pod) {
  expect_stream(pod.v4, Family::kV6);
  EXPECT_EQ(seen_by(pod.v4, Family::kV6), lab_->node_v4());
}

void ExternalNode::expect_stream(const std::string& address, Family family) {
  ST_ASSERT_VALUE(const auto socket, shell_->connect(address, kEcho, {.family = family}));
  EXPECT_EQ(socket.errno_name, "");
  ST_ASSERT_VALUE(const auto peer, shell_->peer_name(socket.id));
  EXPECT_EQ(peer.address, family == Family::kV6 ? "::ffff:" + address : address);
  // HAProxy cuts a client short that half-closes while it is sent to: docs/configuration.md,
  // "External engines".
  ST_ASSERT_VALUE(const auto done,
                  shell_->command(fmt::format("exchange {} len={} seed=1 {}", socket.id, kBytes,
                                              proxy_kind_ == ProxyKind::kHaproxy ? "open" : "")));
  // Cut short or corrupted: two different things.
  EXPECT_EQ(done.value("errno", -1), 0)
      << address << ", send errno " << done.value("send_errno", -1);
  EXPECT_EQ(done.value("length", 0U), kBytes)
      << address << ", sent " << done.value("sent", 0U) << "\n"
      << (proxy_ ? proxy_->output() : "");
  EXPECT_EQ(done.value("digest", ""), done.value("expected_digest", "-")) << address;
  ST_ASSERT_OK(shell_->close(socket.id));
}

}  // namespace sidetrack::lab
