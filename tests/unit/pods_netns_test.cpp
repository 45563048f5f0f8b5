// SPDX-License-Identifier: Apache-2.0
// Which files count as a network namespace: objects name them, and none may stop the agent. What is
// read in one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

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

}  // namespace
}  // namespace sidetrack::pods
