// SPDX-License-Identifier: Apache-2.0
// 9,000 connections at once: 18,000 files here, and as many in a child process that is both client
// and server.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "tests/unit/engine_lab.h"

namespace sidetrack::engine {
namespace {

constexpr int kConnections = 9000;
constexpr std::uint16_t kServerPort = 8000;

enum ChildExit { kFine = 0, kConnectFailed = 1, kEchoFailed = 2 };

bool passes_a_byte(const UniqueFd& from, const UniqueFd& to) {
  char byte = 'x';
  return ::send(from.get(), &byte, 1, MSG_NOSIGNAL) == 1 && ::recv(to.get(), &byte, 1, 0) == 1;
}

// Runs in the child: opens all connections, says so on `out`, waits for a byte on `in`, then uses
// every one of them.
ChildExit use_many(const SocketAddress& through, int in, int out) {
  SocketAddress address = v4("127.0.0.1", kServerPort);
  const UniqueFd listener = listen_at(address);
  std::vector<UniqueFd> clients;
  std::vector<UniqueFd> servers;
  for (int i = 0; i < kConnections; ++i) {
    clients.push_back(connect_to(through));
    servers.push_back(accept_from(listener));
    if (!clients.back().valid() || !servers.back().valid()) {
      return kConnectFailed;
    }
  }
  char byte = 'r';
  if (::write(out, &byte, 1) != 1 || ::read(in, &byte, 1) != 1) {
    return kConnectFailed;
  }
  for (int i = 0; i < kConnections; ++i) {
    const auto index = static_cast<std::size_t>(i);
    if (!passes_a_byte(clients[index], servers[index]) ||
        !passes_a_byte(servers[index], clients[index])) {
      return kEchoFailed;
    }
  }
  return kFine;
}

std::size_t resident_bytes() {
  std::size_t total = 0;
  std::size_t resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

using EngineMany = EngineLab;

TEST_F(EngineMany, carries_9000_connections_at_once) {
  destination_.set(v4("127.0.0.1", kServerPort));
  int to_child[2];
  int to_parent[2];
  ASSERT_EQ(::pipe(to_child), 0);
  ASSERT_EQ(::pipe(to_parent), 0);
  const std::size_t before = resident_bytes();
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(to_child[0], 0);
    ::dup2(to_parent[1], 1);
    ::close_range(3, ~0U, 0);  // what the engine closes must not stay open here
    ::_exit(use_many(listener_, 0, 1));
  }
  char byte = 0;
  ::close(to_parent[1]);
  EXPECT_EQ(::read(to_parent[0], &byte, 1), 1);
  EXPECT_TRUE(eventually([&] { return engine_->totals().connections == kConnections; }));
  const std::size_t per_connection = (resident_bytes() - before) / kConnections;
  RecordProperty("bytes_per_connection", static_cast<int>(per_connection));
  EXPECT_LT(per_connection, 1024U);
  EXPECT_EQ(::write(to_child[1], "g", 1), 1);
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), kFine);
  EXPECT_TRUE(eventually([&] { return engine_->totals().connections == 0; }));
  EXPECT_EQ(engine_->totals().connect_failed, 0U);
}

TEST_F(EngineMany, waits_with_accept_while_there_are_no_files) {
  SocketAddress address = v4("127.0.0.1", 0);
  const UniqueFd listener = listen_at(address);
  destination_.set(address);
  const UniqueFd client = [&] {
    std::vector<UniqueFd> fill;
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    for (UniqueFd fd(::dup(0)); fd.valid(); fd = UniqueFd(::dup(0))) {
      fill.push_back(std::move(fd));
    }
    const KernelAddress kernel = to_kernel(listener_);
    EXPECT_EQ(::connect(socket.get(), kernel.get(), kernel.size), 0);
    EXPECT_TRUE(eventually([&] { return engine_->totals().accept_paused >= 3; }));
    EXPECT_LT(engine_->totals().accept_paused, 200U);
    return socket;
  }();
  send_text(client, "patient");
  EXPECT_EQ(read_all(accept_from(listener), 7).text, "patient");
}

}  // namespace
}  // namespace sidetrack::engine
