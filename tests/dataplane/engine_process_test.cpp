// SPDX-License-Identifier: Apache-2.0
// The engine as a process: its threads, its sockets, how it ends when connections outlast the
// drain.
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "sidetrack/unique_fd.h"
#include "tests/dataplane/fault_node.h"

namespace sidetrack::lab {
namespace {

namespace fs = std::filesystem;

int option_of(const UniqueFd& socket, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  return ::getsockopt(socket.get(), level, name, &value, &size) == 0 ? value : -1;
}

bool is_connected_tcp(const UniqueFd& socket) {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  return option_of(socket, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP &&
         ::getpeername(socket.get(), reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

class EngineProcess : public FaultNode {
 protected:
  [[nodiscard]] fs::path proc(const char* folder) const {
    return fmt::format("/proc/{}/{}", sidetrack_->engine().pid(), folder);
  }
  // The TCP connections that the engine holds: two for each that it relays.
  [[nodiscard]] std::vector<UniqueFd> engine_connections() const {
    const UniqueFd process(
        static_cast<int>(::syscall(SYS_pidfd_open, sidetrack_->engine().pid(), 0)));
    std::vector<UniqueFd> found;
    for (const auto& entry : fs::directory_iterator(proc("fd"))) {
      const int number = std::stoi(entry.path().filename());
      UniqueFd file(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
      if (file.valid() && is_connected_tcp(file)) {
        found.push_back(std::move(file));
      }
    }
    return found;
  }
  [[nodiscard]] unsigned workers() const {
    unsigned count = 0;
    for (const auto& entry : fs::directory_iterator(proc("task"))) {
      std::string name;
      std::getline(std::ifstream(entry.path() / "comm"), name);
      count += name.rfind("worker-", 0) == 0 ? 1 : 0;
    }
    return count;
  }
  int open_stream(const std::string& address) {
    const auto socket = shell_->connect(address, kEcho);
    EXPECT_TRUE(socket.has_value() && socket->error_number == 0) << sidetrack_->logs();
    return socket ? socket->id : 0;
  }
};

TEST_F(EngineProcess, has_a_worker_for_each_core) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  cpu_set_t set;
  ASSERT_EQ(::sched_getaffinity(sidetrack_->engine().pid(), sizeof set, &set), 0);
  EXPECT_EQ(workers(), static_cast<unsigned>(CPU_COUNT(&set)));
}

TEST_F(EngineProcess, has_as_many_workers_as_it_was_told) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack({.engine_arguments = {"--threads", "5"}}));
  EXPECT_EQ(workers(), 5U);
}

TEST_F(EngineProcess, sends_small_messages_at_once_on_both_legs) {
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  for (const std::string& address : {api_v4_, api_->v6}) {
    const int stream = open_stream(address);
    expect_alive(*shell_, stream);
    const auto legs = engine_connections();
    ASSERT_EQ(legs.size(), 2U) << address;
    for (const UniqueFd& leg : legs) {
      EXPECT_EQ(option_of(leg, IPPROTO_TCP, TCP_NODELAY), 1) << address;
    }
    ST_ASSERT_OK(shell_->close(stream));
    ASSERT_TRUE(eventually(kPatience, [&] { return engine_connections().empty(); }));
  }
}

TEST_F(EngineProcess, cuts_what_outlasts_the_drain_and_says_how_much) {
  constexpr int kStreams = 3;
  constexpr milliseconds kDrain{1000};
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack({.engine_arguments = {"--drain", "1s"}}));
  std::vector<int> streams;
  for (int i = 0; i < kStreams; ++i) {
    streams.push_back(open_stream(api_v4_));
    expect_alive(*shell_, streams.back());
  }
  const Clock::time_point began = Clock::now();
  ST_ASSERT_OK(sidetrack_->engine().signal(SIGTERM));
  ST_ASSERT_OK(sidetrack_->engine().wait_for_output("draining"));
  for (const int stream : streams) {
    expect_alive(*shell_, stream);
  }
  ST_ASSERT_VALUE(const int status, sidetrack_->engine().wait());
  const auto passed = Clock::now() - began;
  EXPECT_EQ(status, 0);
  EXPECT_GE(passed, kDrain);
  EXPECT_LT(passed, kDrain + scaled(milliseconds(1000)));
  EXPECT_NE(sidetrack_->logs().find(fmt::format("connections_cut={}", kStreams)), std::string::npos)
      << sidetrack_->logs();
  for (const int stream : streams) {
    ST_ASSERT_VALUE(const auto rest, shell_->receive_to_end(stream));
    EXPECT_EQ(rest.length, 0U);
  }
  expect_connections(5, "engine_down");
}

}  // namespace
}  // namespace sidetrack::lab
