// SPDX-License-Identifier: Apache-2.0
// Which files count as a network namespace: objects name them, and none may stop the agent. What is
// read in one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <memory>

#include "agent/pods/netns.h"
#include "tests/lab/netns.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::pods {
namespace {

ErrorCode refusal_of(const std::string& path) {
  const auto fd = open_netns(path);
  return fd ? ErrorCode::kInternal : fd.error().code;
}

TEST(OpenNetns, takes_a_network_namespace) {
  const auto fd = open_netns("/proc/self/ns/net");
  ASSERT_TRUE(fd) << fd.error().message;
  EXPECT_EQ(fcntl(fd->get(), F_GETFL) & O_PATH, 0) << "setns() needs more than a place";
  EXPECT_NE(fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(OpenNetns, does_not_wait_for_whom_a_fifo_waits) {
  auto folder = lab::TempDir::create("netns");
  ASSERT_TRUE(folder) << folder.error().message;
  const std::string fifo = folder->file("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(refusal_of(fifo), ErrorCode::kInvalid);
}

TEST(OpenNetns, refuses_what_is_something_else) {
  EXPECT_EQ(refusal_of("/dev/null"), ErrorCode::kInvalid);
  EXPECT_EQ(refusal_of("/proc/self/ns"), ErrorCode::kInvalid);
  EXPECT_EQ(refusal_of("/proc/self/ns/uts"), ErrorCode::kInvalid) << "of another kind";
  EXPECT_EQ(refusal_of("/nope"), ErrorCode::kNotFound);
}

TEST(InspectNetns, reads_the_whole_of_a_long_list_of_reserved_ports) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  auto netns = lab::Netns::create(lab::unique_name("reserved"));
  ASSERT_TRUE(netns) << netns.error().message;
  const auto reserved = [&] {
    const auto facts =
        inspect_netns(netns->path(), []() -> Result<std::uint64_t> { return std::uint64_t{1}; });
    return facts ? facts->reserved_ports : facts.error().message;
  };
  EXPECT_EQ(reserved(), "");
  std::string list = "0-1023";
  for (int port = 1025; port < 65535; port += 2) {
    list += "," + std::to_string(port);
  }
  const auto written = netns->run([&]() -> Result<void> {
    std::ofstream file("/proc/sys/net/ipv4/ip_local_reserved_ports");
    file << list << std::flush;
    return file.good() ? Result<void>() : errno_error("write", errno);
  });
  ASSERT_TRUE(written) << written.error().message;
  EXPECT_TRUE(reserved() == list) << reserved().size() << " characters of " << list.size();
}

TEST(InspectOwnNetns, lists_addresses_only_where_the_sources_are_others_than_known) {
  const auto read_cookie = []() -> Result<std::uint64_t> { return std::uint64_t{1}; };
  const auto facts = inspect_own_netns(read_cookie);
  ASSERT_TRUE(facts) << facts.error().message;
  NetnsFacts known = *facts;
  known.addresses = {"192.0.2.77"};
  EXPECT_EQ(inspect_own_netns(read_cookie, &known)->addresses, known.addresses);
  known.sources.emplace_back("192.0.2.78");
  EXPECT_EQ(inspect_own_netns(read_cookie, &known)->addresses, facts->addresses);
}

// What it reads of addresses; IPv4 and IPv6.
class InspectNetnsAddresses : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    auto netns = lab::Netns::create(lab::unique_name("addresses"));
    ASSERT_TRUE(netns) << netns.error().message;
    netns_ = std::make_unique<lab::Netns>(std::move(*netns));
    run("link add one type veth peer name one0\nlink add two type veth peer name two0\n"
        "link set one up\nlink set two up\nlink set one0 up\nlink set two0 up\n"
        "addr add 203.0.113.1/32 dev lo\n"
        "addr add 10.1.0.2/24 dev one\naddr add fd00:1::2/64 dev one nodad\n"
        "addr add 10.2.0.2/24 dev two\naddr add fd00:2::2/64 dev two nodad");
  }
  void run(const std::string& commands) const {
    const auto done = netns_->ip(commands);
    ASSERT_TRUE(done) << done.error().message;
  }
  [[nodiscard]] NetnsFacts facts() const {
    const auto read =
        inspect_netns(netns_->path(), []() -> Result<std::uint64_t> { return std::uint64_t{1}; });
    EXPECT_TRUE(read) << read.error().message;
    return read ? *read : NetnsFacts{};
  }
  std::unique_ptr<lab::Netns> netns_;
};

using Texts = std::vector<std::string>;

TEST_F(InspectNetnsAddresses, no_default_route_has_no_source) {
  EXPECT_EQ(facts().sources, Texts{});
}

TEST_F(InspectNetnsAddresses, the_default_route_says_which_is_the_source) {
  run("route add default via 10.2.0.1\nroute add default via fd00:2::1");
  EXPECT_EQ(facts().sources, (Texts{"10.2.0.2", "fd00:2::2", "fd00:2::2"}));
  run("route replace default via 10.1.0.1 src 203.0.113.1");
  EXPECT_EQ(facts().sources.front(), "203.0.113.1");
}

TEST_F(InspectNetnsAddresses, of_ipv6_there_is_a_source_for_global_and_one_for_local_destinations) {
  run("addr add 2001:db8:2::2/64 dev two nodad\nroute add default via fd00:2::1");
  EXPECT_EQ(facts().sources, (Texts{"2001:db8:2::2", "fd00:2::2"}));
}

TEST_F(InspectNetnsAddresses, addresses_are_those_that_lead_beyond_the_link) {
  EXPECT_EQ(facts().addresses, (Texts{"10.1.0.2", "10.2.0.2", "fd00:1::2", "fd00:2::2"}));
}

TEST_F(InspectNetnsAddresses, an_address_that_is_no_more_than_link_local_is_no_source) {
  run("addr del fd00:1::2/64 dev one\naddr del fd00:2::2/64 dev two\nroute add ::/0 dev two");
  EXPECT_EQ(facts().sources, Texts{});
}

TEST_F(InspectNetnsAddresses, a_default_route_that_refuses_has_no_source) {
  run("route add unreachable 0.0.0.0/0\nroute add unreachable ::/0");
  EXPECT_EQ(facts().sources, Texts{});
}

}  // namespace
}  // namespace sidetrack::pods
