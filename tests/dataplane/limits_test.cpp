// SPDX-License-Identifier: Apache-2.0
// The largest policies that are allowed, in the kernel: 65,535 ports, 10,000 CIDRs, many pods.
#include <fmt/format.h>

#include <random>

#include <nlohmann/json.hpp>

#include "tests/dataplane/scale_node.h"

namespace sidetrack::lab {
namespace {

constexpr const char* kPorts = "sidetrack.io/exclude-outbound-ports";
constexpr const char* kCidrs = "sidetrack.io/exclude-outbound-cidrs";
constexpr int kProbes = 200;
constexpr std::uint32_t kSeed = 20261124;
constexpr milliseconds kCollected{60'000};

// Each port of LOW to HIGH by itself, but for `without`.
std::string list_ports(int low, int high, int without) {
  std::string list;
  for (int port = low; port <= high; ++port) {
    if (port != without) {
      list += fmt::format("{}{}", list.empty() ? "" : ",", port);
    }
  }
  return list;
}

// Of the networks that the lists here name the odd hosts of: no two of those make a shorter prefix.
std::string address_of(bool v6, int host) {
  return v6 ? fmt::format("fd00:64::{:x}", host)
            : fmt::format("100.64.{}.{}", host / 256, host % 256);
}

// The odd hosts of both families in turn; every other one of a family only for one port.
constexpr bool is_limited(int host) {
  return host / 2 % 2 == 1;
}
std::string item_of(int index) {
  const bool v6 = index % 2 == 1;
  const int host = index / 2 * 2 + 1;
  const std::string cidr = address_of(v6, host) + (v6 ? "/128" : "/32");
  if (!is_limited(host)) {
    return cidr;
  }
  return v6 ? "[" + cidr + "]:7000" : cidr + ":7000";
}

std::string list_cidrs(int first, int count) {
  std::string list;
  for (int i = first; i < first + count; ++i) {
    list += (list.empty() ? "" : ",") + item_of(i);
  }
  return list;
}

std::string destination_of(bool v6, int host, std::uint16_t port) {
  const std::string address = address_of(v6, host);
  return fmt::format("{}:{}", v6 ? "%5B" + address + "%5D" : address, port);  // in a query
}

class LimitsTest : public ScaleNode {
 protected:
  void set_up_pods(const StringMap& annotations) {
    server_ = &plain_pod("server");
    client_ = &meshed_pod("client", annotations);
    echo_ = echo_in(*server_, {"echo:7000", "echo:7001"});
    shell_ = shell_in(*client_);
  }

  void start() {
    ASSERT_NO_FATAL_FAILURE(start_sidetrack());
    ASSERT_NO_FATAL_FAILURE(wait_until_enrolled("client"));
  }

  void expect_echo(const std::string& address, std::uint16_t port, const std::string& reason) {
    const auto before = counted(reason);
    ST_ASSERT_VALUE(const auto burst, shell_->burst(address, port, {.count = 5}));
    EXPECT_EQ(burst.ok, 5U) << address << ":" << port;
    EXPECT_EQ(counted(reason), before + 5) << address << ":" << port;
  }

  Pod* server_ = nullptr;
  Pod* client_ = nullptr;
  std::unique_ptr<EchoServer> echo_;
  std::unique_ptr<PodShell> shell_;
};

TEST_F(LimitsTest, every_port_excluded_but_one) {
  // Half on the namespace, half on the pod: each object holds at most 256 KiB.
  ASSERT_NO_FATAL_FAILURE(set_up_pods({{kPorts, list_ports(32'768, 65'535, 0)}}));
  ST_ASSERT_OK(
      objects_->set_annotation(Kind::kNamespace, "shop", kPorts, list_ports(1, 32'767, 7000)));
  ASSERT_NO_FATAL_FAILURE(start());
  std::mt19937 random(kSeed);
  for (int i = 0; i < kProbes; ++i) {
    const auto port = 1 + random() % 65'535;
    EXPECT_EQ(explain("client", fmt::format("{}:{}", server_->v4, port)),
              port == 7000 ? "redirected/redirected" : "direct/excluded_port")
        << port;
  }
  for (const int port : {1, 511, 512, 6999, 7001, 32'767, 32'768, 65'535}) {
    EXPECT_EQ(explain("client", fmt::format("{}:{}", server_->v4, port)), "direct/excluded_port");
  }
  expect_echo(server_->v4, 7000, "redirected");
  expect_echo(server_->v4, 7001, "excluded_port");
  // The last one, by a live edit.
  ST_ASSERT_OK(
      objects_->set_annotation(Kind::kNamespace, "shop", kPorts, list_ports(1, 32'767, 0)));
  EXPECT_TRUE(eventually(kPatience, [&] {
    return explain("client", server_->v4 + ":7000") == "direct/excluded_port";
  }));
  expect_echo(server_->v4, 7000, "excluded_port");
}

TEST_F(LimitsTest, ten_thousand_cidrs) {
  ASSERT_NO_FATAL_FAILURE(set_up_pods({{kCidrs, list_cidrs(5000, 5000)}}));
  ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", kCidrs, list_cidrs(0, 5000)));
  for (const bool v6 : {false, true}) {
    for (const int host : {1, 2, 3}) {
      ST_ASSERT_OK(lab_->add_service_address(address_of(v6, host), *server_));
    }
  }
  ASSERT_NO_FATAL_FAILURE(start());
  EXPECT_EQ(map_entries("st_cidrs"), 10'000U);
  std::mt19937 random(kSeed);
  for (int i = 0; i < kProbes; ++i) {
    const bool v6 = random() % 2 == 1;
    const int host = static_cast<int>(random() % 10'000);
    const std::uint16_t port = random() % 2 == 1 ? 7000 : 7001;
    const bool excluded = host % 2 == 1 && (!is_limited(host) || port == 7000);
    EXPECT_EQ(explain("client", destination_of(v6, host, port)),
              excluded ? "direct/excluded_cidr" : "redirected/redirected")
        << address_of(v6, host) << " " << port;
  }
  for (const bool v6 : {false, true}) {
    expect_echo(address_of(v6, 1), 7001, "excluded_cidr");
    expect_echo(address_of(v6, 2), 7000, "redirected");
    expect_echo(address_of(v6, 3), 7000, "excluded_cidr");
    expect_echo(address_of(v6, 3), 7001, "redirected");
  }
}

TEST_F(LimitsTest, equal_policies_share_storage_and_go_with_the_last_pod) {
  std::vector<std::string> names;
  ASSERT_NO_FATAL_FAILURE(set_up_pods({{kCidrs, list_cidrs(0, 50)}}));
  std::vector<Netns> spaces;
  for (int i = 0; i < 99; ++i) {
    ST_ASSERT_VALUE(auto space, Netns::create("many"));
    names.push_back(fmt::format("many-{}", i));
    ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                       .name = names.back(),
                                       .netns_path = space.path(),
                                       .annotations = {{kCidrs, list_cidrs(0, 50)}}}));
    spaces.push_back(std::move(space));
  }
  ASSERT_NO_FATAL_FAILURE(start());
  ASSERT_NO_FATAL_FAILURE(wait_until_enrolled(names.back()));
  EXPECT_EQ(map_entries("st_policies"), 1U);
  EXPECT_EQ(map_entries("st_cidrs"), 50U);
  for (std::size_t i = 0; i < 3; ++i) {
    ST_ASSERT_OK(objects_->set_annotation(Kind::kPod, "shop/" + names[i], kCidrs,
                                          list_cidrs(0, 51 + static_cast<int>(i))));
  }
  EXPECT_TRUE(eventually(kPatience, [&] { return map_entries("st_policies") == 4; }));
  EXPECT_EQ(map_entries("st_cidrs"), 50U + 51U + 52U + 53U);
  for (const std::string& name : names) {
    ST_ASSERT_OK(objects_->remove(Kind::kPod, "shop/" + name));
  }
  EXPECT_TRUE(eventually(kCollected, [&] { return map_entries("st_policies") == 1; }));
  EXPECT_EQ(map_entries("st_cidrs"), 50U);
}

// 26 different policies of 10,000 CIDRs fill st_cidrs so far that no other one has room.
class FullMapTest : public LimitsTest {
 protected:
  static constexpr int kPolicies = 26;

  // 9,999 come from the namespace.
  static StringMap own_network(int number) {
    return {{kCidrs, fmt::format("10.200.{}.0/24", number)}};
  }
  [[nodiscard]] std::string client_drift() const {
    const auto pod = sidetrack_->pod("shop/client");
    return pod ? pod->value("state", "") + " " + pod->value("reason", "") : pod.error().message;
  }
  [[nodiscard]] std::string said_by(const char* command) const {
    const auto done = sidetrack_->ctl({command});
    return done ? done->output : done.error().message;
  }
  // Of an address of the client's network `number`.
  [[nodiscard]] std::string verdict_of(int number) const {
    return explain("client", fmt::format("10.200.{}.1:7000", number));
  }

  std::vector<Netns> spaces_;
};

TEST_F(FullMapTest, a_policy_that_does_not_fit_leaves_the_last_one_in_force) {
  ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", kCidrs, list_cidrs(0, 9'999)));
  ASSERT_NO_FATAL_FAILURE(set_up_pods(own_network(0)));
  for (int i = 1; i < kPolicies; ++i) {
    ST_ASSERT_VALUE(auto space, Netns::create("full"));
    ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                       .name = fmt::format("full-{}", i),
                                       .netns_path = space.path(),
                                       .annotations = own_network(i)}));
    spaces_.push_back(std::move(space));
  }
  ASSERT_NO_FATAL_FAILURE(start());
  for (int i = 1; i < kPolicies; ++i) {
    ASSERT_NO_FATAL_FAILURE(wait_until_enrolled(fmt::format("full-{}", i)));
  }
  EXPECT_EQ(map_entries("st_cidrs"), 260'000U);
  ST_ASSERT_OK(objects_->set_annotation(Kind::kPod, "shop/client", kCidrs, "10.200.99.0/24"));
  EXPECT_TRUE(eventually(kPatience, [&] { return client_drift() == "drift map_full"; }))
      << client_drift();
  EXPECT_EQ(map_entries("st_cidrs"), 260'000U);
  // "!": the kernel has another policy than the objects ask for.
  EXPECT_EQ(verdict_of(0), "direct/excluded_cidr!");
  EXPECT_EQ(verdict_of(99), "redirected/redirected!");
  expect_echo(server_->v4, 7000, "redirected");
  EXPECT_EQ(sidetrack_->metric("sidetrack_pod_drift{reason=\"map_full\"}"), 1);
  for (const char* command : {"status", "doctor"}) {
    const std::string said = said_by(command);
    EXPECT_NE(said.find("map_full"), std::string::npos) << said;
    EXPECT_NE(said.find("shop/client"), std::string::npos) << said;
  }
  ST_ASSERT_OK(objects_->remove(Kind::kPod, "shop/full-1"));
  EXPECT_TRUE(eventually(kCollected, [&] { return client_drift() == "enrolled "; }))
      << client_drift();
  EXPECT_EQ(verdict_of(0), "redirected/redirected");
  EXPECT_EQ(verdict_of(99), "direct/excluded_cidr");
}

}  // namespace
}  // namespace sidetrack::lab
