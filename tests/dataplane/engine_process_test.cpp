// SPDX-License-Identifier: Apache-2.0
// The engine as a process: its threads, its sockets, how it ends when connections outlast the
// drain.
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

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

// One thread of another process does not run while this is there.
class HeldThread {
 public:
  explicit HeldThread(pid_t thread) : thread_(thread) {
    held_ = ::ptrace(PTRACE_SEIZE, thread_, nullptr, nullptr) == 0 &&
            ::ptrace(PTRACE_INTERRUPT, thread_, nullptr, nullptr) == 0 &&
            ::waitpid(thread_, nullptr, __WALL) == thread_;
  }
  ~HeldThread() { ::ptrace(PTRACE_DETACH, thread_, nullptr, nullptr); }
  HeldThread(const HeldThread&) = delete;
  HeldThread& operator=(const HeldThread&) = delete;
  [[nodiscard]] bool held() const { return held_; }

 private:
  pid_t thread_;
  bool held_ = false;
};

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
  [[nodiscard]] std::vector<pid_t> workers() const {
    std::vector<pid_t> threads;
    for (const auto& entry : fs::directory_iterator(proc("task"))) {
      std::string name;
      std::getline(std::ifstream(entry.path() / "comm"), name);
      if (name.rfind("worker-", 0) == 0) {
        threads.push_back(std::stoi(entry.path().filename()));
      }
    }
    return threads;
  }
  [[nodiscard]] std::uint64_t metric(const std::string& series) const {
    const auto value = sidetrack_->metric("sidetrack_engine_" + series, kEngineHttp);
    EXPECT_TRUE(value.has_value()) << series;
    return static_cast<std::uint64_t>(value.value_or(0));
  }
  [[nodiscard]] bool eventually_tells(const std::string& series, std::uint64_t value) const {
    return eventually(kPatience, [&] { return metric(series) == value; });
  }
  [[nodiscard]] std::size_t open_files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(proc("fd")), fs::directory_iterator()));
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
  EXPECT_EQ(workers().size(), static_cast<std::size_t>(CPU_COUNT(&set)));
}

TEST_F(EngineProcess, has_as_many_workers_as_it_was_told) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack({.engine_arguments = {"--threads", "5"}}));
  EXPECT_EQ(workers().size(), 5U);
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

TEST_F(EngineProcess, tells_what_goes_through_it) {
  constexpr std::uint64_t kStreams = 2;
  constexpr std::uint64_t kBytes = 4096;  // there and back on each stream
  constexpr std::uint64_t kShort = 5;
  constexpr std::uint64_t kShortBytes = 32;
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack({.engine_http = true}));
  const std::size_t files = open_files();
  ST_ASSERT_VALUE(const std::string health, sidetrack_->get_http("/healthz", kEngineHttp));
  EXPECT_EQ(health, "ok\n");
  const std::uint64_t used = metric("files_used");
  for (std::uint64_t i = 0; i < kStreams; ++i) {
    expect_alive(*shell_, open_stream(api_v4_), kBytes);
  }
  ST_ASSERT_VALUE(const auto burst,
                  shell_->burst(api_v4_, kEcho, {.count = kShort, .length = kShortBytes}));
  expect_clean(burst, kShort, sidetrack_->logs());

  EXPECT_TRUE(eventually_tells("connections", kStreams)) << metric("connections");
  EXPECT_EQ(metric("accepted_total"), kStreams + kShort);
  const std::uint64_t bytes = kStreams * kBytes + kShort * kShortBytes;
  EXPECT_TRUE(eventually_tells("bytes_total{direction=\"out\"}", bytes));
  EXPECT_TRUE(eventually_tells("bytes_total{direction=\"in\"}", bytes));
  EXPECT_EQ(metric("buffered_bytes"), 0U);
  EXPECT_EQ(metric("resets_total"), 0U);
  EXPECT_EQ(metric("pods"), 1U);
  EXPECT_EQ(metric("files_used") - used, 2 * kStreams);
  EXPECT_TRUE(eventually(kPatience, [&] { return open_files() == files + 2 * kStreams; }))
      << "those that ask have gone";
  rlimit limit{};
  ASSERT_EQ(::prlimit(sidetrack_->engine().pid(), RLIMIT_NOFILE, nullptr, &limit), 0);
  EXPECT_EQ(metric("files_limit"), limit.rlim_cur);

  // Nobody listens there; then a connection to its listener that nobody redirected.
  ST_ASSERT_VALUE(const auto refused, shell_->connect(api_v4_, 9));
  ST_ASSERT_OK(shell_->close(refused.id));
  EXPECT_TRUE(eventually_tells("refused_total{reason=\"upstream_failed\"}", 1));
  EXPECT_EQ(metric("endpoint_failures_total"), 0U) << "no Service has this address";
  ST_ASSERT_VALUE(const auto pod, sidetrack_->pod("shop/web"));
  ST_ASSERT_VALUE(const auto straight,
                  shell_->connect("127.0.0.1", pod["engine_ports"].at(0).get<std::uint16_t>()));
  ST_ASSERT_OK(shell_->close(straight.id));
  EXPECT_TRUE(eventually_tells("refused_total{reason=\"no_original_destination\"}", 1));
  ST_ASSERT_OK(shell_->process().terminate());
  EXPECT_TRUE(eventually_tells("connections", 0)) << metric("connections");
}

TEST_F(EngineProcess, of_which_one_thread_is_stuck_is_down_until_it_goes_on) {
  start_echo();
  ASSERT_NO_FATAL_FAILURE(start_sidetrack({.engine_http = true}));
  {
    const HeldThread stuck(workers().front());
    ASSERT_TRUE(stuck.held());
    std::string health;
    EXPECT_TRUE(eventually(kPatience, [&] {
      const auto answer = sidetrack_->get_http("/healthz", kEngineHttp);
      health = answer ? *answer : answer.error().message;
      return health.find("503 a worker is stuck") != std::string::npos;
    })) << health;
    EXPECT_TRUE(eventually_explains("engine_down"));
    expect_connections(3, "engine_down");
  }
  EXPECT_TRUE(eventually_explains("redirected"));
  ST_ASSERT_OK(sidetrack_->get_http("/healthz", kEngineHttp));
  expect_connections(3, "redirected");
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
